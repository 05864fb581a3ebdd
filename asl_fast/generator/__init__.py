"""The interface of Keras's `ImageDataGenerator` and its iterators."""
