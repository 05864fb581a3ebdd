"""Images in, images out, whole batches: pure TensorFlow functions and the two Keras layers."""
