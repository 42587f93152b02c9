"""Make the data and train the network: `python make.py [FOLDER]`, with any backend of Keras (KERAS_BACKEND)."""

import sys
from pathlib import Path

import keras
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from net import MLP


def table(samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return eight features and whether a curved function of four of them is above zero."""
    x = np.random.default_rng(seed).standard_normal((samples, 8)).astype(np.float32)
    return x, (x[:, 0] * x[:, 1] + x[:, 2] ** 2 + 0.3 * x[:, 3] > 0.7).astype(np.int64)


def trained(name: str, rate: float, x: np.ndarray, y: np.ndarray) -> keras.Model:
    """Return the network after training with binary cross-entropy and the optimizer `name`."""
    keras.utils.set_random_seed(0)
    model = MLP()
    optimizer = keras.optimizers.get({"class_name": name, "config": {"learning_rate": rate}})
    model.compile(optimizer=optimizer, loss="binary_crossentropy", metrics=["accuracy"])
    model.fit(x, y, epochs=30, batch_size=32, verbose=0)
    return model


def main(folder: Path) -> None:
    """Write data.npz, mlp_sgd.keras, mlp_adam.keras and what the networks answer on the held-out rows."""
    folder.mkdir(parents=True, exist_ok=True)
    (x, y), (held_x, held_y) = table(6000, 0), table(6000, 1)
    np.savez(folder / "data.npz", x_train=x, y_train=y, x_val=held_x, y_val=held_y)
    for name, rate in (("sgd", 0.3), ("adam", 0.01)):
        model = trained(name, rate, x, y)
        model.save(folder / f"mlp_{name}.keras")
        answers = model.predict(held_x, verbose=0)
        np.save(folder / f"answers_{name}.npy", answers)
        right = float(((answers[:, 0] > 0.5) == held_y).mean())
        print(f"{keras.backend.backend()} {name}: accuracy {right:.4f} on {len(held_y)} held-out rows")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
