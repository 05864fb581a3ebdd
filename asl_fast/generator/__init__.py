"""`ImageDataGenerator` and its iterators, with Keras's interface."""
