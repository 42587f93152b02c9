"""`tersor distill`: the command-line form of `tersor.distill`."""

from tersor.cli.answer import Json
from tersor.cli.flags import ModelFlags
from tersor.cli.train import CourseFlags, claim, course_of, finish, leads, opened

_NO_FLAGS, _NO_MODEL = CourseFlags(), ModelFlags()


def distill(
    teacher: str,
    student: str | None = None,
    *,
    data: str,
    student_ratio: float | None = None,
    course: CourseFlags = _NO_FLAGS,
    loading: ModelFlags = _NO_MODEL,
    json: Json = False,
) -> int:
    """Train STUDENT to answer as TEACHER does, or a smaller copy of TEACHER; labels are not needed.

    Args:
        teacher: the trained model, as for `tersor optimize`; `--weights` and `--model-arg` are its own.
        student: a model with the same inputs and outputs and fresh weights; leave it out with `--student-ratio`.
        data: as for `tersor optimize`.
        student_ratio: make the student by cutting this fraction of the teacher's multiply-adds.
        course: how to train.
        loading: how to open the teacher.
        json: print the training as JSON.
    """
    from tersor.cli.progress import Display
    from tersor.errors import ArgumentError
    from tersor.graph.trace import trace
    from tersor.recovery.head import first_inputs
    from tersor.recovery.train import distill as run
    from tersor.search.verbs import prune
    from tersor.surgery.store import save

    if (student is None) == (student_ratio is None):
        raise ArgumentError(
            "Name a student, or give `--student-ratio` to cut one from the teacher; one of the two."
        )
    state = claim(course.output, resume=course.resume)
    guide = opened(teacher, loading, course.seed).eval()
    inputs = first_inputs(guide, data)
    plan = None
    if student is not None:
        network = opened(student, ModelFlags(), course.seed)
    else:
        assert student_ratio is not None
        network, plan = prune(guide, inputs, ratio=student_ratio)
    with Display() as display:
        start = "scratch" if plan is None else "compressed"
        learned = run(
            network,
            guide,
            data,
            epochs=course.epochs,
            optimizer=course.optimizer,
            course=course_of(course, display, state, start=start),
        )
    if plan is None:
        return finish(learned, course.output, (str(student), ModelFlags()), "", json=json)
    if leads():
        save(learned.model, plan, trace(guide, inputs), course.output)
    return finish(learned, course.output, (teacher, loading), "load(original, HERE)", json=json)
