"""A small stand-in for the Hugging Face hub, over HTTP: repositories are made, filled and read."""

import base64
import contextlib
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub.constants


class Hub(ThreadingHTTPServer):
    """Knows repositories by id: whether each is private, and its files by name.

    Attributes:
      tokens: those that came with requests.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.private: dict[str, bool] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.tokens: set[str | None] = set()
        self.refuses = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def commit_of(self, repository: str) -> str:
        """40 hexadecimal digits that change with the files."""
        return hashlib.sha1(repr(sorted(self.files[repository].items())).encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *args):
        """Nothing is logged."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.tokens.add(self.headers.get("Authorization"))
        if self.server.refuses:
            return self.answer({"error": "Invalid username or password."}, 401)
        if self.path == "/api/repos/create":
            return self.create(json.loads(body))
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        repository, _, what = (
            self.path.removeprefix("/api/models/").partition("/main")[0].rpartition("/")
        )
        if what == "preupload":
            names = [each["path"] for each in json.loads(body)["files"]]
            modes = {"uploadMode": "regular", "shouldIgnore": False}
            return self.answer({"files": [{"path": name, **modes} for name in names]})
        if what == "commit":
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.server.files[repository][line["value"]["path"]] = content
            commit = self.server.commit_of(repository)
            address = f"{self.server.address}/{repository}/commit/{commit}"
            return self.answer({"commitUrl": address, "commitOid": commit, "success": True})
        return self.answer({"error": f"{self.path}: unknown"}, 404)

    def create(self, asked):
        repository = "/".join(filter(None, (asked["organization"], asked["name"])))
        address = {"url": f"{self.server.address}/{repository}"}
        if repository in self.server.private:
            return self.answer(address, 409)
        self.server.private[repository] = asked["visibility"] == "private"
        self.server.files[repository] = {}
        return self.answer(address)

    def do_GET(self):
        repository = "/".join(self.path.removeprefix("/api/models").split("/")[1:3])
        if repository not in self.server.files:
            return self.answer({"error": "Repository not found"}, 404)
        there, commit = self.server.files[repository], self.server.commit_of(repository)
        if "/resolve/" in self.path:
            content = there[self.path.rpartition("/")[2]]
            tag = hashlib.sha1(content).hexdigest()
            return self.send(content, 200, {"ETag": f'"{tag}"', "X-Repo-Commit": commit})
        if "/tree/" in self.path:
            files = ({"type": "file", "path": name, "size": len(there[name])} for name in there)
            return self.answer([{**each, "oid": commit} for each in files])
        known = {"id": repository, "private": self.server.private[repository], "sha": commit}
        return self.answer(known | {"siblings": [{"rfilename": name} for name in there]})

    do_HEAD = do_GET

    def answer(self, content, status=200):
        self.send(json.dumps(content).encode(), status, {"Content-Type": "application/json"})

    def send(self, content, status, headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextlib.contextmanager
def stand_in(monkeypatch, cache):
    """Yields a hub that huggingface_hub asks in place of the real one; `cache` is its cache."""
    with Hub() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        constants = huggingface_hub.constants
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        template = f"{server.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
        yield server
        server.shutdown()
