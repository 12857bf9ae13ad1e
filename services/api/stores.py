"""The packed results that requests ask for, kept open: a reader knows where each job lies once it has looked."""

import threading
from collections import OrderedDict
from pathlib import Path

from common import outputs, results

MOST_OPEN = 16


class Stores:
    """Opens the packed results of a directory once; the one that was not asked for longest is forgotten first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[tuple[Path, int], results.Store] = OrderedDict()

    def packed(self, place: Path) -> results.Store | None:
        """The results in a batch's directory, if they are packed."""
        spec = outputs.read_spec(place)
        if spec is None or spec.output_mode != results.PACKED:
            return None
        with self._lock:
            key = (place, spec.id)
            store = self._open.pop(key, None) or results.open_store(place, spec)
            self._open[key] = store
            while len(self._open) > MOST_OPEN:
                self._open.popitem(last=False)
            return store
