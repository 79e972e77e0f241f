"""Files from the Hugging Face hub, or from its cache without a network."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

from faithmap.zoo.recipe import refusal

_TIMEOUT = 10  # seconds
_USUAL_NAMES = ("model.safetensors", "pytorch_model.bin")


def reachable(name: str, repo: str) -> bool:
    """Whether the hub responds to one request; its client would repeat a request six times, over half a minute.

    Raises:
        ModelError: if the hub has no such repository.
    """
    try:
        huggingface_hub.model_info(repo, timeout=_TIMEOUT)
    except RepositoryNotFoundError as error:
        problem = f"the Hugging Face hub has no repository {repo} for you"
        raise refusal(name, problem, "check the name, or log in if it is private") from error
    except Exception:  # noqa: BLE001 - the errors without a network depend on the client's version
        return False
    return True


def hub_file(name: str, repo: str, filename: str | None) -> Path:
    """A repository's weights: the file of that name, or of a usual name.

    Raises:
        ModelError: if the file is not in the repository, or there is no network and it is not in the cache.
    """
    repo, _, revision = repo.partition("@")
    online = reachable(name, repo)
    for candidate in (filename,) if filename else _USUAL_NAMES:
        try:
            path = huggingface_hub.hf_hub_download(repo, candidate, revision=revision or None, local_files_only=not online)
        except EntryNotFoundError:
            continue
        return Path(path)
    if online:
        raise refusal(name, f"{repo} has no {filename or ' or '.join(_USUAL_NAMES)}", "give weights=FILE")
    problem = "the weights are not in the cache, and the Hugging Face hub does not respond"
    raise refusal(name, problem, "connect to the network, or download them elsewhere and give weights=FILE")
