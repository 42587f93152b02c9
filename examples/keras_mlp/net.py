"""A multilayer perceptron as a subclassed Keras model, as its author might have written it."""

import keras


class MLP(keras.Model):
    """Sixteen hidden units and the probability of yes."""

    def __init__(self, **options):
        super().__init__(**options)
        self.hidden = keras.layers.Dense(16, activation="relu")
        self.top = keras.layers.Dense(1, activation="sigmoid")

    def call(self, x):
        """Return probabilities, shape (samples, 1)."""
        return self.top(self.hidden(x))
