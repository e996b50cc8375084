"""What passes take when all is well, and groups of rows. Pure."""

from collections.abc import Iterator, Sequence

import numpy as np

from yolopool.doctor.rows import I64, Mask, Numbers, Rows

# Of the passes of a model with so many images: the quickest fifth says what they can take.
QUICK = 0.2
MAX_PLACES = 5


def kind_of(device: str) -> str:
    return device.partition(":")[0]


def kinds(rows: Rows) -> I64:
    """By row a number for the kind of its device: cuda, cpu, sim."""
    words = [kind_of(text) for text in rows.texts["device"]]
    known = {word: number for number, word in enumerate(dict.fromkeys(words))}
    return np.array([known[word] for word in words], np.int64)[rows.codes["device"]]


def keyed(*columns: I64) -> I64:
    """One number for each combination of values."""
    key = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        _, values = np.unique(column, return_inverse=True)
        key = key * (int(values.max(initial=0)) + 1) + values
    return key


def groups(key: I64) -> Iterator[I64]:
    """Indices of the rows of each value, the largest group first."""
    if not len(key):
        return
    order = np.argsort(key, kind="stable")
    ends = np.flatnonzero(np.diff(key[order])) + 1
    yield from sorted(np.split(order, ends), key=len, reverse=True)


def quick_ms(rows: Rows, cold: Mask) -> Numbers:
    """For each row, what a pass like its own takes when all is well: of the same model, kind of
    device and number of images, the quickest fifth of those that are not cold. Large passes may
    have been run in bad times alone: one takes no more for an image than a smaller one.
    """
    batch = np.maximum(1, np.nan_to_num(rows["batch_size"], nan=1.0)).astype(np.int64)
    quick = np.full(len(rows), np.nan)
    inference = rows["inference_ms"]
    for of_model in groups(keyed(rows.codes["model"], kinds(rows))):
        an_image = np.inf
        by_size = sorted(groups(batch[of_model]), key=lambda one: int(batch[of_model[one[0]]]))
        for one in by_size:
            index = of_model[one]
            size = int(batch[index[0]])
            warm = index[~cold[index]]
            taken = np.sort(inference[warm if len(warm) else index])
            an_image = min(an_image, taken[int(QUICK * (len(taken) - 1))] / size)
            quick[index] = an_image * size
    return quick


def mean(values: Numbers) -> float:
    """The mean of what is known; 0 of nothing."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else 0.0


def median(values: Numbers) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else 0.0


def worst(rows: Rows, index: I64, by: Numbers) -> tuple[int, ...]:
    """Places of the rows with the most of something."""
    order = np.argsort(np.nan_to_num(by[index], nan=-1.0))[::-1][:MAX_PLACES]
    return tuple(int(place) for place in rows.places[index[order]])


def named(texts: Sequence[str], code: int, otherwise: str) -> str:
    return texts[code] or otherwise
