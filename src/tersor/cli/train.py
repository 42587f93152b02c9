"""`tersor train`: the command-line form of `tersor.train`."""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tersor.cli.answer import Json, show
from tersor.cli.flags import ModelFlags, arguments_of

if TYPE_CHECKING:
    from torch import nn

    from tersor.cli.progress import Display
    from tersor.recovery.course import Course
    from tersor.recovery.learn import Learned

#: Where a run keeps its state inside the output folder until it ends.
_STATE = "run"


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class CourseFlags:
    """How to train; the same words as in `tersor.Course`."""

    output: Annotated[Path, Parameter(alias="-o")] = Path("trained")
    "Folder to write."

    epochs: float | None = None
    "Passes over the training samples; 20 when neither this nor a budget is given."

    budget: str | None = None
    "Time for all of it, such as 30m or 2h."

    optimizer: str = "auto"
    "auto tries several; or sgd, adam, adamw, rmsprop, adagrad, nadamw, lion, adafactor, muon, schedule_free, prodigy."

    lr: float | None = None
    "Peak learning rate; the usual one, or that of the trials, when left out."

    batch: int | None = None
    "Samples per step; by the number of training samples when left out."

    patience: int | None = None
    "Passes without a new best on the search split after which training ends."

    average: float | None = None
    "Decay of a running mean of the weights, such as 0.999, which replaces them."

    precision: str | None = None
    "float32, bfloat16 (products of matrices), or auto: the quickest here. auto with a budget, when left out."

    augment: Annotated[bool, Parameter(negative=())] = False
    "Shift and flip images at random."

    metric: str | None = None
    "Name of a metric, or `module:function`; inferred from the labels when left out."

    leave_out_copies: Annotated[bool, Parameter(negative=())] = False
    "Leave out of train and search what the sealed samples hold too, instead of refusing."

    seed: int = 0
    "Seed of every random choice."

    resume: Annotated[bool, Parameter(negative=())] = False
    "Go on with the run that the output folder holds."


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class TransferFlags:
    """What else to do with weights of another task."""

    new_head: int | None = None
    "Give the last layer fresh weights and this many outputs, for other classes than the weights know."

    head_epochs: float = 0.0
    "Passes in which the last layer alone is trained first."

    layer_decay: float = 1.0
    "Factor on the learning rate from each level of layers to the one below it, such as 0.8."


_NO_FLAGS, _NO_TRANSFER, _NO_MODEL = CourseFlags(), TransferFlags(), ModelFlags()


def train(
    model: str,
    *,
    data: str,
    loss: str | None = None,
    course: CourseFlags = _NO_FLAGS,
    transfer: TransferFlags = _NO_TRANSFER,
    loading: ModelFlags = _NO_MODEL,
    json: Json = False,
) -> int:
    """Train MODEL on labelled data, from scratch or from the weights it has, and write the weights that did best.

    Killed at any moment, the same words with `--resume` go on from the last snapshot; on one thread they end with the
    same bits. One data set is divided as for `tersor optimize`, so that its sealed samples stay unseen.

    Args:
        model: `package.module:factory`, `file.py:factory`, `timm:NAME`, `hf:NAME` or a saved folder.
        data: as for `tersor optimize`.
        loss: name of a loss; the usual one of the task when left out.
        course: how to train.
        transfer: how to start from weights of another task.
        loading: how to open the model.
        json: print the training as JSON.
    """
    from tersor.cli.progress import Display
    from tersor.recovery.head import first_inputs, head_of, new_head
    from tersor.recovery.train import train as run

    state = claim(course.output, resume=course.resume)
    network, rebuild = opened(model, loading, course.seed), ""
    if (classes := transfer.new_head) is not None:
        inputs = first_inputs(network, data)
        rebuild = f'with_outputs(original(), "{head_of(network, inputs)}", {classes})'
        network = new_head(network, inputs, classes, seed=course.seed)
    pretrained = loading.weights is not None or model.startswith(("hf:", "timm:")) or classes is not None
    with Display() as display:
        learned = run(
            network,
            data,
            epochs=course.epochs,
            optimizer=course.optimizer,
            loss=loss,
            course=course_of(
                course,
                display,
                state,
                start="trained" if pretrained else "scratch",
                head_epochs=transfer.head_epochs,
                layer_decay=transfer.layer_decay,
            ),
        )
    return finish(learned, course.output, (model, loading), rebuild, json=json)


def opened(model: str, loading: ModelFlags, seed: int) -> "nn.Module":
    """Return the model, with fresh weights that depend on the seed alone."""
    import torch

    from tersor.loading.model import load_model

    torch.manual_seed(seed)
    return load_model(
        model,
        weights=loading.weights,
        arguments=arguments_of(loading),
        allow_code_execution=loading.allow_code_execution,
    )


def claim(output: Path, *, resume: bool) -> Path:
    """Return the folder for the state of the run, after making sure that nothing of value is overwritten.

    Raises:
        ArgumentError: if an unfinished run is there and was not asked for.
        FolderError: if the folder holds something else, or cannot be written.
    """
    from tersor.errors import ArgumentError, FolderError
    from tersor.recovery.decide import FILE
    from tersor.recovery.learn import REPORT

    state = output / _STATE
    try:
        ours = (
            not output.exists() or not any(output.iterdir()) or (output / REPORT).exists() or state.exists()
        )
        if not ours:
            raise FolderError(f"{output} holds files that `tersor train` did not write. Choose another -o.")
        if resume and (output / REPORT).exists() and not state.exists():
            raise ArgumentError(f"The training in {output} has ended. Leave out --resume to train again.")
        if (state / FILE).exists() and not resume:
            raise ArgumentError(
                f"{output} holds a training that did not end. Go on with it by --resume, or choose another -o."
            )
        existing = next(place for place in (output, *output.absolute().parents) if place.exists())
        if not os.access(existing, os.W_OK):
            raise FolderError(f"{output} cannot be written. Choose another -o.")
    except OSError as error:
        raise FolderError(f"{output} cannot be written: {error}.") from error
    return state


def leads() -> bool:
    """Return whether this process writes files: the first of a `torchrun`, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0


def course_of(flags: CourseFlags, display: "Display", state: Path, **more: object) -> "Course":
    """Return the flags as a `Course` that shows its progress and keeps its state."""
    from tersor.recovery.course import Course
    from tersor.recovery.team import Team
    from tersor.recovery.views import shift_and_flip
    from tersor.search.events import Event

    # torchrun says how many processes take part.
    team = Team() if int(os.environ.get("WORLD_SIZE", "1")) > 1 else None
    if team and not team.leads:
        display.quiet = True
    return Course(
        budget=flags.budget,
        lr=flags.lr,
        batch=flags.batch,
        average=flags.average,
        patience=flags.patience,
        precision=flags.precision,
        augment=shift_and_flip if flags.augment else None,
        metric=flags.metric,
        leave_out_copies=flags.leave_out_copies,
        seed=flags.seed,
        folder=state,
        team=team,
        on_step=lambda step, steps, _: display(Event("training", "steps", step, steps)),
        say=lambda text: display(Event("training", text)),
        **more,  # pyright: ignore[reportArgumentType] - further fields of Course
    )


def finish(
    learned: "Learned", output: Path, source: tuple[str, ModelFlags], rebuild: str, *, json: bool
) -> int:
    """Write the weights, clear the state, and say what was learned and what to do next."""
    import shutil

    if not leads():
        return 0
    learned.save(output)
    script = output / "model.py"
    script.unlink(missing_ok=True)
    if rebuild:
        script.write_text(_script(source, rebuild))
    shutil.rmtree(output / _STATE, ignore_errors=True)  # a short training keeps none
    model = f"{script}:build" if rebuild else source[0]
    arguments = (
        "" if rebuild else "".join(f" --model-arg {shlex.quote(word)}" for word in source[1].model_arg)
    )
    files = ["model.safetensors", "training.json", *(["model.py"] if rebuild else [])]
    lines = [
        *learned.words(),
        f"wrote {output}/   {', '.join(files)}",
        f"next:  tersor optimize {model}{arguments} --weights {output / 'model.safetensors'} --data ... --max-drop 1%",
    ]
    show(learned.as_json(), lines, json=json)
    return 0


def _script(source: tuple[str, ModelFlags], rebuild: str) -> str:
    """Return a module whose `build` makes the network that the written weights fill."""
    model, loading = source
    file, colon, name = model.rpartition(":")
    if file.endswith(".py"):
        model = f"{Path(file).resolve()}{colon}{name}"
    return _SCRIPT.format(model=model, arguments=arguments_of(loading), made=rebuild)


_SCRIPT = '''"""The network that model.safetensors fills; made by tersor."""

from pathlib import Path

from tersor import load, load_model, with_outputs

HERE = Path(__file__).parent


def original():
    return load_model({model!r}, arguments={arguments!r})


def build():
    return {made}
'''
