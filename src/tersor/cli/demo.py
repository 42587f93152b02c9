"""`tersor demo`: the whole journey on data that needs no download, through the same function that users call."""

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from tersor.optimizers.registry import Recipe
    from tersor.recovery.epochs import Epochs
    from tersor.search.events import Listener

_NEXT = """       tersor demo --model mlp --optimizer rmsprop
       tersor check mypkg.models:build --data mypkg.data:splits        your own model, in seconds
       tersor optimize mypkg.models:build --data mypkg.data:splits --max-drop 1% --budget 30m -o out
"""
#: Peak learning rates from scratch that suit both networks.
_RATES = {"sgd": 0.1, "adam": 2e-3, "adamw": 2e-3, "rmsprop": 1e-3, "adagrad": 2e-2}
#: Training from scratch, before anything is compressed.
_EPOCHS, _BATCH = 20, 64


def demo(
    *,
    model: Literal["cnn", "mlp"] = "cnn",
    optimizer: str = "auto",
    max_drop: str = "0.02",
    output: Annotated[Path, Parameter(alias="-o")] = Path("tersor-demo"),
    seed: int = 0,
) -> int:
    """Train a small network on scikit-learn's handwritten digits, then make it faster and certify it. Offline.

    For example, `tersor demo --model mlp --optimizer rmsprop`

    Args:
        model: a convolutional network or a multilayer perceptron.
        optimizer: of the training from scratch: auto, sgd, adam, rmsprop, adagrad or any other name.
        max_drop: largest loss of accuracy: 0.02 is two points, 1% is relative.
        output: folder to write.
        seed: of every random choice.
    """
    from tersor.reporting.folder import refuse_foreign

    refuse_foreign(output.absolute())

    import torch

    from tersor.cli.digits import split_digits
    from tersor.cli.progress import Display
    from tersor.cli.show import finish
    from tersor.search.optimize import optimize

    torch.set_num_threads(1)
    splits = split_digits(seed)
    with Display() as display:
        network = trained(model, optimizer, splits["train"], seed, display)
        # A ledger of its own: the demo's data is no secret, and running it again is no new attempt on anything.
        ledger = Path(tempfile.mkdtemp(prefix="tersor-")) / "ledger.jsonl"
        result = optimize(network, splits, max_drop=max_drop, seed=seed, ledger=ledger, on_event=display)
    status = finish(
        result,
        output,
        command=f"tersor demo --model {model} --optimizer {optimizer} --max-drop {max_drop} --seed {seed}",
    )
    sys.stdout.write(_NEXT)
    return status


def trained(
    name: str, optimizer: str, samples: "tuple[np.ndarray, np.ndarray]", seed: int, listen: "Listener"
) -> "nn.Module":
    """Return the network called `name`, trained from scratch on `samples`."""
    import torch
    from torch import nn

    from tersor.cli.digits import NETWORKS
    from tersor.recovery.epochs import Epochs, InMemory
    from tersor.recovery.loop import train
    from tersor.recovery.settings import Settings
    from tersor.search.events import Event

    torch.manual_seed(seed)
    network = NETWORKS[name]()
    images, labels = (torch.from_numpy(array) for array in samples)
    batches = Epochs(InMemory(images, labels), size=_BATCH, epochs=_EPOCHS, seed=seed)
    chosen, reason = choose_recipe(
        network, optimizer, Epochs(InMemory(images, labels), size=_BATCH, epochs=1), len(batches)
    )
    listen(Event("training", f"{name} from scratch with {chosen} ({reason})"))
    settings = Settings(
        seed=seed, on_step=lambda step, steps, _: listen(Event("training", name, step, steps))
    )
    return train(
        network, batches, loss=nn.functional.cross_entropy, optimizer=chosen, settings=settings
    ).model


def choose_recipe(
    network: "nn.Module", optimizer: str, batches: "Epochs", steps: int
) -> tuple["Recipe", str]:
    """Return the recipe called `optimizer` and why; for `auto` the one that suits network, data and length."""
    from torch import nn

    from tersor.loading.inputs import call, main_output
    from tersor.optimizers.auto import choose
    from tersor.optimizers.registry import make_recipe

    if optimizer != "auto":
        return make_recipe(optimizer, lr=_RATES.get(optimizer, 1e-3)), "asked for"

    def objective(model, batch):
        return nn.functional.cross_entropy(main_output(call(model, batch.inputs)), batch.target)

    choice = choose(network, batches, objective, steps=steps, probe=list(batches)[:2])
    return choice.recipe, choice.reason
