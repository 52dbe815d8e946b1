"""The tokeniser of a Hugging Face checkpoint: its tokenizer.json, read by the `tokenizers` library alone."""
# L positions

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as Backend

from tasks.data.base import DataError
from tasks.encodings import Encoded, remembered
from tasks.specials import Frame, Specials
from tasks.tokenizers import Text, Tokenizer

FILES = (  # what is read, the first alone being needed
    "tokenizer.json",
    "tokenizer_config.json",  # which token is pad, bos, eos, ...
    "special_tokens_map.json",  # the same, in older checkpoints
    "config.json",  # of the model: which id a decoder starts with, whether there are token types
    "generation_config.json",  # the former, in newer checkpoints
)
COMMIT = re.compile(r"[0-9a-f]{40}")


class Pretrained(Tokenizer):
    """A checkpoint's own ids, for `encoder=pretrained` of the same checkpoint or any other encoder.

    path: a directory with tokenizer.json, or a name on the hub, of which `revision`, a commit's 40 hexadecimal digits,
    is fetched at fit(), which learns nothing. Words that are split already give the ids of their text joined by spaces.
    A special token that stands in a text ("[SEP]") is text.

    frame() is what the checkpoint's own post-processor adds: [CLS] ... [SEP] ... [SEP]. Where it puts nothing between
    two texts (GPT-2), `sep` stands there. Special ids that a checkpoint lacks: sep is eos, and eos sep; pad, unk and
    mask are eos. bos is what config.json lets a decoder start with (BART: </s>), else <s>, [CLS] or pad (T5).
    No code of the checkpoint's is run, no pickle opened. Raises ValueError for a path without tokenizer.json and for a
    hub name without a commit; at fit() DataError for a file that is malformed, and where the hub can't be reached.
    """

    paths: ClassVar[Mapping[str, tuple[str, ...]]] = {"path": FILES}

    def __init__(self, *, path: str, revision: str | None) -> None:
        self.path, self.revision = path, revision
        folder = Path(path).expanduser()
        if folder.is_dir():
            if not (folder / FILES[0]).is_file():
                raise ValueError(
                    f"path: {path} has no tokenizer.json, the one form that is read; "
                    "AutoTokenizer.from_pretrained(...).save_pretrained(...) of transformers writes it"
                )
        elif path.startswith((".", "/", "~")) or path.count("/") > 1:
            raise ValueError(f"path: there is no directory {path}")
        elif not COMMIT.fullmatch(revision or ""):
            raise ValueError(
                f"revision: {revision}; there is no directory {path}, and a name on the hub needs the 40 digits of a "
                "commit, since a branch can move"
            )
        self.backend: Backend | None = None

    # -- reading -------------------------------------------------------------------------------------------------
    def fit(self, texts: Sequence[Text]) -> None:
        """Read the files."""
        if self.backend is not None:
            return
        folder = self._folder()
        if not (folder / FILES[0]).is_file():
            raise DataError(f"task.tokenizer.path: {self.path} has no tokenizer.json, the one form that is read")
        try:
            backend = Backend.from_file(str(folder / FILES[0]))
        except Exception as error:  # the library raises this class itself
            raise DataError(
                f"task.tokenizer.path: {folder / FILES[0]} can't be read: {str(error).splitlines()[0]:.200}"
            ) from None
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True  # "[SEP]" in a text is text
        config = _object(folder / "generation_config.json") | _object(folder / "config.json")
        named = _object(folder / "special_tokens_map.json") | _object(folder / "tokenizer_config.json")
        self.backend = backend
        self.vocabulary = hashlib.sha256((folder / FILES[0]).read_bytes()).hexdigest()
        self.segments = _number(config, "type_vocab_size", 1) > 1
        self.specials, known = _specials(backend, named, config.get("decoder_start_token_id"), self.path)
        added = backend.get_added_tokens_decoder().items()
        self._special_ids = known | {i for i, token in added if token.special}
        single, pair = _template(backend, 1, self.path), _template(backend, 2, self.path)
        self._frames = single, pair if pair.between else Frame(between=(self.specials.sep,))

    def _folder(self) -> Path:
        folder = Path(self.path).expanduser()
        if folder.is_dir():
            return folder
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(self.path, revision=self.revision, allow_patterns=list(FILES)))
        except (OSError, ValueError) as error:  # no such name, no network, offline and not in the cache
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise DataError(
                f"task.tokenizer.path: no directory {self.path}, and the hub did not give it: {reason:.200}"
            ) from None

    # -- the contract --------------------------------------------------------------------------------------------
    @property
    def special_ids(self) -> frozenset[int]:
        """All ids that stand for no text."""
        return self._special_ids

    def frame(self, parts: int) -> Frame:
        """What the checkpoint's post-processor adds to one text, or to a pair."""
        return self._frames[parts > 1]

    @property
    def vocab_size(self) -> int:
        """The highest id and one: there may be gaps."""
        assert self.backend is not None, "fit first"
        return 1 + max(self.backend.get_vocab(with_added_tokens=True).values())

    def encode(self, texts: Sequence[Text]) -> list[Encoded]:
        """Ids of each text; of many from the cache, where they are."""
        assert self.backend is not None, "fit first"
        checked = [_text(text) for text in texts]
        recipe = (type(self).__name__, self.vocabulary, sorted(self._special_ids), self.specials)
        return remembered(recipe, checked, lambda: self._encode(checked))

    def _encode(self, texts: Sequence[str | list[str]]) -> list[Encoded]:
        assert self.backend is not None
        encoded: list[Encoded] = []
        special = sorted(self._special_ids)
        for start in range(0, len(texts), 4096):  # bounds the memory of the library's own objects
            chunk = texts[start : start + 4096]
            joined = [_joined(text) for text in chunk]
            found = self.backend.encode_batch(joined, add_special_tokens=False)
            for text, whole, one in zip(chunk, joined, found, strict=True):
                ids = np.asarray(one.ids, dtype=np.int64)
                ids[np.isin(ids, special)] = self.specials.unk  # a model that has "</s>" among its pieces finds it
                encoded.append(_encoded(text, whole, ids, one.offsets))
        return encoded

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids, special ids left out."""
        assert self.backend is not None, "fit first"
        return str(self.backend.decode([int(i) for i in ids if int(i) not in self._special_ids]))


# -- ids of texts ----------------------------------------------------------------------------------------------------
def _text(text: Text) -> str | list[str]:
    if isinstance(text, np.ndarray):
        raise DataError("tokenizer: the data's sources are ids; use tasks.tokenizers.Ids")
    return text


def _joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else " ".join(text)


def _encoded(text: str | list[str], joined: str, ids: NDArray[np.int64], offsets: list[tuple[int, int]]) -> Encoded:
    """`offsets` are where each id begins and ends in `joined`; a space before a word may belong to its first piece."""
    offsets_L2 = np.fromiter((end for pair in offsets for end in pair), dtype=np.int64).reshape(-1, 2)
    begins_L = np.maximum.accumulate(offsets_L2[:, 0]) if len(ids) else offsets_L2[:, 0]
    if len(begins_L):
        begins_L[0] = 0
    words_L = np.full(len(ids), -1)
    if not isinstance(text, str) and len(ids):
        number_of_C = np.full(len(joined) + 1, -1)  # of each character, and none after the last
        start = 0
        for number, word in enumerate(text):
            number_of_C[start : start + len(word)] = number
            start += len(word) + 1
        real_L = offsets_L2[:, 1] > offsets_L2[:, 0]
        words_L = np.where(real_L, number_of_C[offsets_L2[:, 1] - 1], -1)  # an id's last character says its word
    return Encoded(ids=ids, words=words_L, characters=np.diff(begins_L, append=len(joined)))


# -- special ids -----------------------------------------------------------------------------------------------------
def _specials(backend: Backend, named: Mapping[str, Any], start: Any, path: str) -> tuple[Specials, frozenset[int]]:
    """The ids by use, and all that are named."""

    def of(name: str) -> int | None:
        token = named.get(f"{name}_token")
        if isinstance(token, dict):
            token = token.get("content")
        return backend.token_to_id(token) if isinstance(token, str) else None

    names = ("pad", "unk", "bos", "eos", "sep", "mask", "cls")
    found = {name: number for name in names if (number := of(name)) is not None}
    unk = found.get("unk", backend.token_to_id(getattr(backend.model, "unk_token", None) or ""))
    end = next((found[name] for name in ("eos", "sep", "pad", "bos", "cls") if name in found), None)
    if end is None:
        raise DataError(
            f"task.tokenizer.path: {path} names no special token that ends a text; its tokenizer_config.json should"
            " have an eos_token"
        )
    first = start if type(start) is int else next((found[n] for n in ("bos", "cls", "pad") if n in found), end)
    specials = Specials(
        pad=found.get("pad", end),
        unk=end if unk is None else unk,
        bos=first,
        eos=end,
        sep=found.get("sep", end),
        mask=found.get("mask", end),
    )
    return specials, frozenset(found.values()) | specials.ids


def _template(backend: Backend, parts: int, path: str) -> Frame:
    """What the post-processor adds to one text or two, seen on a text of one id or more."""
    candidates = ("a", "0", ".", *backend.get_vocab())
    probe = next((text for text in candidates if backend.encode(text, add_special_tokens=False).ids), None)
    if probe is None:
        raise DataError(f"task.tokenizer.path: the tokenizer.json of {path} gives no id for any text")
    encoding = backend.encode(probe, probe if parts == 2 else None)
    where = encoding.sequence_ids
    own = [i for i, part in enumerate(where) if part is not None]
    turn = next((i for i in own if where[i] == 1), len(where))
    last = max((i for i in own if where[i] == 0), default=-1)
    ids = tuple(encoding.ids)
    before, after = ids[: own[0]], ids[own[-1] + 1 :]
    between = ids[last + 1 : turn] if parts == 2 else ()
    return Frame(before=before, between=between, after=after)


# -- files -----------------------------------------------------------------------------------------------------------
def _object(path: Path) -> dict[str, Any]:
    """A JSON file's object; {} where there is no file."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"task.tokenizer.path: {path} is no JSON: {error}") from None
    if not isinstance(content, dict):
        raise DataError(f"task.tokenizer.path: {path} holds no object")
    return content


def _number(config: Mapping[str, Any], key: str, default: int) -> int:
    value = config.get(key)
    return value if type(value) is int else default
