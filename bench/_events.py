"""What a search says, printed while a benchmark runs."""

from tersor.search.events import Event


def tell(event: Event) -> None:
    """Print an event, unless it is only one step of many."""
    if not event.total:
        print(f"  {event.phase:10} {event.text}", flush=True)
