"""Files of the Hugging Face hub."""

import pathlib

PATIENCE = 5  # seconds to wait for an answer


def fetch(repository: str, file: str, revision: str | None = None) -> pathlib.Path:
    """A file from the cache of the hub on this machine, else from the network, which fills the
    cache.

    Args:
      repository: the id, as `opencv/face_detection_yunet`.
      file: its path in the repository.
      revision: a commit; None is the newest.

    Raises:
      OSError, httpx.HTTPError: it is neither in the cache nor can it be had now.
      RemoteEntryNotFoundError: the repository has no such file.
      HFValidationError: `repository` is no id.
    """
    import huggingface_hub as hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    which = {"revision": revision} if revision else {}
    try:
        return pathlib.Path(hub.hf_hub_download(repository, file, local_files_only=True, **which))
    except LocalEntryNotFoundError:
        # fails at once, where `hf_hub_download` would try again for 25 s
        hub.get_hf_file_metadata(hub.hf_hub_url(repository, file, **which), timeout=PATIENCE)
        return pathlib.Path(hub.hf_hub_download(repository, file, etag_timeout=PATIENCE, **which))
