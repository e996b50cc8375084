"""Where `detect --save` writes and in which forms, settled before anything is detected."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from yolopool.cli.detect import saving
from yolopool.client.media.sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Source, SourceKind
from yolopool.errors import InvalidOption


class Form(StrEnum):
    IMAGES = "images"
    VIDEO = "video"
    JSONL = "jsonl"
    CSV = "csv"
    COCO = "coco"
    YOLO = "yolo"


# Forms that are one file for everything, and its name in a folder.
LISTS = {Form.JSONL: "results.jsonl", Form.CSV: "results.csv", Form.COCO: "coco.json"}
# Formats that keep the times of frames.
VIDEO_FORMATS = (".mp4", ".mkv", ".mov", ".m4v")
STDOUT = Path("-")


@dataclass(frozen=True, slots=True)
class Places:
    """`forms` are what is written. `files`: a picture or video for each source, by its number;
    `lists`: a file for each form of all sources together, STDOUT for one; `stems` name each
    source's files in `folder`. `of_frames`: the frames of videos become pictures too.
    """

    forms: frozenset[Form] = frozenset()
    of_frames: bool = False
    folder: Path = Path()
    stems: Sequence[str] = ()
    files: Mapping[int, Path] = field(default_factory=dict)
    lists: Mapping[Form, Path] = field(default_factory=dict)


def settled(sources: Sequence[Source], save: Path | None, words: Sequence[str]) -> Places:
    """Raises InvalidOption, also for a file that is one of the images, and OSError for a folder
    that can't be created.
    """
    given = _forms(words)
    if save is None:
        if given:
            raise InvalidOption(f"--as {words[0]} needs a place: give --save FOLDER too")
        return Places()
    forms = given or _implied(sources, save)
    if save == STDOUT:
        return Places(forms, lists={_one_list(forms): STDOUT})
    if not save.is_dir() and (one := _as_file(sources, save, forms)) is not None:
        return one
    return _in_folder(sources, save, forms, of_frames=Form.IMAGES in given)


def _forms(words: Sequence[str]) -> frozenset[Form]:
    known = {form.value: form for form in Form}
    for word in words:
        if word not in known:
            raise InvalidOption(f"--as {word}: one of {', '.join(known)}")
    return frozenset(known[word] for word in words)


def _implied(sources: Sequence[Source], save: Path) -> frozenset[Form]:
    """The form that the ending of a file says; else pictures of images, and videos of videos."""
    by_suffix = {Path(name).suffix: form for form, name in LISTS.items() if form is not Form.COCO}
    if not save.is_dir() and save.suffix.lower() in by_suffix:
        return frozenset((by_suffix[save.suffix.lower()],))
    of_images = {source.kind is SourceKind.IMAGE for source in sources}
    return frozenset(Form.IMAGES if is_image else Form.VIDEO for is_image in of_images)


def _one_list(forms: frozenset[Form]) -> Form:
    if len(forms) != 1 or not forms <= set(LISTS):
        raise InvalidOption("--save - writes one text: give one of --as jsonl, csv or coco with it")
    return next(iter(forms))


def _as_file(sources: Sequence[Source], save: Path, forms: frozenset[Form]) -> Places | None:
    """What `save` means as a file; None: it is a folder. Raises InvalidOption."""
    suffix = save.suffix.lower()
    if len(forms) == 1:
        (form,) = forms
        if form in LISTS and suffix == Path(LISTS[form]).suffix:
            _check_parent(save)
            return Places(forms, lists={form: save})
        if form is Form.IMAGES and len(sources) == 1 and sources[0].kind is SourceKind.IMAGE:
            saving.check_file(Path(sources[0].place), save)
            return Places(forms, files={0: save})
        if form is Form.VIDEO and len(sources) == 1 and suffix in VIDEO_FORMATS:
            saving.check_not_source(Path(sources[0].place), save)
            _check_parent(save)
            return Places(forms, files={0: save})
    if suffix in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES, ".jsonl", ".json", ".csv", ".txt"):
        named = ", ".join(sorted(forms))
        raise InvalidOption(
            f"--save {save}: {named} of {len(sources)} images and videos do not fit one file of "
            "this name: give a folder"
        )
    return None


def _check_parent(save: Path) -> None:
    if not save.parent.is_dir():
        raise InvalidOption(f"--save {save}: there is no folder {save.parent}: create it first")


def _in_folder(
    sources: Sequence[Source], folder: Path, forms: frozenset[Form], of_frames: bool
) -> Places:
    """Free names in a folder, which is created: nothing in it is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    stems = free_stems(
        [source.stem for source in sources],
        [_names(source, forms) for source in sources],
        lambda name: (folder / name).exists(),
    )
    pictures = {
        number: folder / f"{stem}{_picture_suffix(source)}"
        for number, (source, stem) in enumerate(zip(sources, stems, strict=True))
        if source.kind is SourceKind.IMAGE and Form.IMAGES in forms
    }
    videos = {
        number: folder / f"{stem}{_video_suffix(source)}"
        for number, (source, stem) in enumerate(zip(sources, stems, strict=True))
        if source.kind is not SourceKind.IMAGE and Form.VIDEO in forms
    }
    lists = {form: _free(folder / LISTS[form]) for form in LISTS if form in forms}
    return Places(forms, of_frames, folder, stems, pictures | videos, lists)


def free_stems(
    stems: Sequence[str],
    names: Sequence[Callable[[str], Sequence[str]]],
    is_taken: Callable[[str], bool],
) -> list[str]:
    """A stem for each source such that all its names are free: a, else a-2, and so on."""
    given, found = set[str](), list[str]()
    for stem, names_of in zip(stems, names, strict=True):
        free, number = stem, 1
        while any(name in given or is_taken(name) for name in names_of(free)):
            number += 1
            free = f"{stem}-{number}"
        given.update(names_of(free))
        found.append(free)
    return found


def _names(source: Source, forms: frozenset[Form]) -> Callable[[str], Sequence[str]]:
    """The names that a source with this stem takes in the folder."""
    if source.kind is SourceKind.IMAGE:
        suffixes = {Form.IMAGES: f"{{}}{_picture_suffix(source)}", Form.YOLO: "labels/{}.txt"}
    else:
        suffixes = {
            Form.IMAGES: "{}", Form.VIDEO: f"{{}}{_video_suffix(source)}",
            Form.YOLO: "labels/{}_1.txt",
        }  # fmt: skip
    wanted = [pattern for form, pattern in suffixes.items() if form in forms]
    return lambda stem: [pattern.format(stem) for pattern in wanted]


def _picture_suffix(source: Source) -> str:
    suffix = Path(source.place).suffix
    return suffix if suffix.lower() in saving.KEPT else ".png"


def _video_suffix(source: Source) -> str:
    suffix = Path(source.place).suffix.lower() if source.kind is SourceKind.VIDEO else ""
    return suffix if suffix in VIDEO_FORMATS else ".mp4"


def _free(path: Path) -> Path:
    free, number = path, 1
    while free.exists():
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return free
