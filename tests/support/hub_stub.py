"""A Hugging Face Hub on the loopback, for tests: downloads, uploads, and the faults that a network has.

    with HubStub() as hub:
        hub.add_repo("org/name", {"config.json": b"{}", "model.safetensors": bytes(100_000)})
        hub.faults["model.safetensors"] = ["cut", "500"]      # of its next requests, one after the other
        ... HF_ENDPOINT=hub.endpoint ...
        assert not hub.leaks()                                # tokens that came to the host of large files

It speaks the protocol that the Python client `huggingface_hub` speaks, which must pass against it too. Large files (all
*.safetensors, and what is over 4 KiB) are delivered and taken by a second server under another host name, as on the
real Hub. Only the standard library is used.
"""

import base64
import hashlib
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

LARGE = 4096
PAGE = 3  # entries of a listing's page
TOKEN = "hf_of_the_owner"


def git_blob(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def is_large(path, size):
    return path.endswith(".safetensors") or size > LARGE


class Repo:
    def __init__(self, private):
        self.private = private
        self.commits = {}  # commit -> {path: bytes}
        self.refs = {}  # branch or tag -> commit
        self.messages = {}  # commit -> its summary
        self.extra_entries = []  # of listings: what an honest Hub would not list

    def commit(self, files, revision="main", message="initial commit"):
        parts = [b"%s\0%s\0" % (path.encode(), hashlib.sha1(data).digest()) for path, data in sorted(files.items())]
        name = hashlib.sha1(b"".join(parts) + message.encode() + str(len(self.commits)).encode()).hexdigest()
        self.commits[name] = dict(files)
        self.refs[revision] = name
        self.messages[name] = message
        return name

    def resolve(self, revision):
        return revision if revision in self.commits else self.refs.get(revision)


class HubStub:
    PIECE = 16384

    def __init__(self, part_bytes=None):
        self.repos = {}  # ("model" or "dataset", "org/name") -> Repo
        self.store = {}  # SHA-256 -> bytes of large files
        self.parts = {}  # (SHA-256, number) -> bytes
        self.part_bytes = part_bytes  # larger uploads go in parts of so many bytes
        self.faults = {}  # path -> faults of its next requests; "always" before one: of all
        self.requests = []  # (server, method, path, headers), in their order
        self.pace = 0.0  # seconds before each piece of a body
        self.pieces = 0  # of large files, sent so far
        self.hub = self._serve("127.0.0.1", HubHandler)
        self.other = self._serve("127.0.0.2", OtherHandler)
        self.endpoint = "http://127.0.0.1:%d" % self.hub.server_port
        self.elsewhere = "http://127.0.0.2:%d" % self.other.server_port

    def _serve(self, host, handler):
        server = Server((host, 0), handler)
        server.stub = self
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return server

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        for server in (self.hub, self.other):
            server.shutdown()
            server.server_close()

    def add_repo(self, name, files, kind="model", private=False):
        repo = self.repos[(kind, name)] = Repo(private)
        for path, data in files.items():
            if is_large(path, len(data)):
                self.store[hashlib.sha256(data).hexdigest()] = data
        repo.commit(files)
        return repo

    def leaks(self):
        """Requests with a token to the other host."""
        return [request for request in self.requests if request[0] == "other" and "authorization" in request[3]]

    def count(self, method, part):
        return sum(1 for request in self.requests if request[1] == method and part in request[2])

    def next_fault(self, path):
        waiting = self.faults.get(path, [])
        if waiting[:1] == ["always"]:
            return waiting[1]
        return waiting.pop(0) if waiting else None


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request, client_address):
        pass  # clients that are killed on purpose


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    @property
    def stub(self):
        return self.server.stub

    def dispatch(self):
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.stub.requests.append((self.side, self.command, self.path, headers))
        length = int(headers.get("content-length", 0))
        self.body = self.rfile.read(length)
        self.split = urlsplit(self.path)
        for method, pattern, answer in self.routes:
            match = re.fullmatch(pattern, self.split.path)
            if match and self.command in method.split("|"):
                return answer(self, **{name: unquote(value or "") for name, value in match.groupdict().items()})
        self.reply(404, {"error": "no such page"})

    do_GET = do_HEAD = do_POST = do_PUT = dispatch

    def reply(self, status, body=b"", headers=()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | dict(headers)).items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.send(data)

    def send(self, data):
        for at in range(0, len(data), self.stub.PIECE):
            time.sleep(self.stub.pace)
            self.wfile.write(data[at : at + self.stub.PIECE])
            self.stub.pieces += len(data) > LARGE

    def deliver(self, data, headers, fault):
        """The file, or the part of it that is asked for, with a fault if there is one."""
        begin = 0
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        headers = dict(headers)
        status = 200
        if wanted and fault != "ignore-range":
            begin = int(wanted[1])
            if begin >= len(data):
                return self.reply(416, b"", {"Content-Range": "bytes */%d" % len(data)})
            status = 206
            headers["Content-Range"] = "bytes %d-%d/%d" % (begin, len(data) - 1, len(data))
        if fault == "wrong-range":
            headers["Content-Range"] = "bytes 0-%d/%d" % (len(data) - 1, len(data))
        body = data[begin:]
        if fault == "short":
            body = body[: len(body) // 2]
        elif fault == "long":
            body += b"and more"
        elif fault == "flip":
            body = bytes([body[0] ^ 1]) + body[1:]
        if fault in ("cut", "stall"):
            headers["Content-Length"] = str(len(body))
            body = body[: len(body) // 2]
        elif fault == "endless":  # no length: the end of the connection is the end of the body
            headers["Content-Length"] = None
            body += b"and more"
        self.reply(status, body, headers)
        if fault == "stall":
            time.sleep(30)
        if fault in ("cut", "stall", "endless"):
            self.close_connection = True
            self.wfile.flush()
            self.connection.close()

    def answer_fault(self, fault):
        """Faults that are answers of their own; whether it was one."""
        if fault in ("500", "503", "429"):
            self.reply(int(fault), {"error": "try again"})
        elif fault == "html":
            self.reply(404, b"<html><h1>404</h1></html>", {"Content-Type": "text/html"})
        elif fault == "page":
            self.reply(200, b"<html><h1>Please sign in to this network</h1></html>", {"Content-Type": "text/html"})
        elif fault == "loop":
            self.reply(302, b"", {"Location": self.path})
        elif fault == "elsewhere":
            self.reply(302, b"", {"Location": self.stub.elsewhere + "/anything" + self.split.path})
        elif fault == "file-url":
            self.reply(302, b"", {"Location": "file:///etc/passwd"})
        elif fault == "user-url":
            self.reply(302, b"", {"Location": self.stub.endpoint.replace("//", "//user:secret@") + self.path})
        else:
            return False
        return True


class HubHandler(Handler):
    """The Hub itself: its API, small files, and where large ones are."""

    side = "hub"

    def repo_of(self, kind, name):
        repo = self.stub.repos.get(("dataset" if kind.startswith("dataset") else "model", name))
        if repo is None or (repo.private and not self.is_owner()):
            error = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
            self.reply(404 if self.is_owner() else 401, b"", error)
            return None
        return repo

    def is_owner(self):
        return self.headers.get("Authorization") == "Bearer " + TOKEN

    def commit_of(self, repo, revision):
        commit = repo.resolve(revision or "main")
        if commit is None:
            error = {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id: " + revision}
            self.reply(404, b"", error)
        return commit

    def info(self, kind, name, revision=""):
        if self.answer_fault(self.stub.next_fault("info")):
            return
        repo = self.repo_of(kind, name)
        commit = repo and self.commit_of(repo, revision)
        if commit:
            siblings = [{"rfilename": path} for path in repo.commits[commit]]
            self.reply(200, {"id": name, "sha": commit, "private": repo.private, "siblings": siblings})

    def tree(self, kind, name, revision):
        repo = self.repo_of(kind, name)
        commit = repo and self.commit_of(repo, revision)
        if not commit:
            return
        entries = []
        for path, data in sorted(repo.commits[commit].items()):
            entry = {"type": "file", "path": path, "size": len(data), "oid": git_blob(data)}
            if is_large(path, len(data)):
                sha256 = hashlib.sha256(data).hexdigest()
                pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n" % (sha256, len(data))
                entry["oid"] = git_blob(pointer.encode())
                entry["lfs"] = {"oid": sha256, "size": len(data), "pointerSize": len(pointer)}
            entries.append(entry)
            if "/" in path:
                entries.append({"type": "directory", "path": path.rsplit("/", 1)[0], "size": 0, "oid": "0" * 40})
        entries += repo.extra_entries
        begin = int(parse_qs(self.split.query).get("cursor", ["0"])[0])
        headers = {}
        if begin + PAGE < len(entries):
            link = "%s%s?recursive=true&cursor=%d" % (self.stub.endpoint, self.split.path, begin + PAGE)
            headers["Link"] = '<%s>; rel="next"' % link
        self.reply(200, entries[begin : begin + PAGE], headers)

    def resolve(self, kind, name, revision, path):
        repo = self.repo_of(kind, name)
        commit = repo and self.commit_of(repo, revision)
        if not commit:
            return
        data = repo.commits[commit].get(path)
        if data is None:
            error = {"X-Repo-Commit": commit, "X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
            return self.reply(404, b"", error)
        large = is_large(path, len(data))
        fault = self.stub.next_fault(path) if self.command == "GET" and not large else None
        if self.answer_fault(fault):
            return
        headers = {"X-Repo-Commit": commit, "ETag": '"%s"' % git_blob(data), "Accept-Ranges": "bytes"}
        if fault == "no-etag":
            del headers["ETag"]
        if not large:
            return self.deliver(data, headers, fault)
        sha256 = hashlib.sha256(data).hexdigest()
        place = "%s/files/%s?signature=secret&name=%s" % (self.stub.elsewhere, sha256, quote(path, safe=""))
        headers |= {"X-Linked-Etag": '"%s"' % sha256, "X-Linked-Size": str(len(data)), "Location": place}
        self.reply(302, b"", headers)

    def create(self):
        if not self.is_owner():
            return self.reply(401, {"error": "Invalid username or password."})
        asked = json.loads(self.body)
        name = "%s/%s" % (asked["organization"], asked["name"])
        kind = asked.get("type", "model")
        url = "%s/%s%s" % (self.stub.endpoint, "" if kind == "model" else kind + "s/", name)
        if (kind, name) in self.stub.repos:
            return self.reply(409, {"error": "You already created this repo", "url": url})
        private = asked.get("private") is True or asked.get("visibility") == "private"
        self.stub.add_repo(name, {".gitattributes": b"*.safetensors filter=lfs\n"}, kind, private)
        self.reply(200, {"url": url, "name": name})

    def preupload(self, kind, name, revision):
        repo = self.repo_of(kind, name) if self.is_owner() else self.reply(401, {"error": "no token"})
        commit = repo and self.commit_of(repo, revision)
        if not commit:
            return
        answers = []
        for file in json.loads(self.body)["files"]:
            large = is_large(file["path"], file["size"])
            answer = {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            there = repo.commits[commit].get(file["path"])
            if there is not None:
                answer["oid"] = hashlib.sha256(there).hexdigest() if large else git_blob(there)
            answers.append(answer)
        self.reply(200, {"files": answers})

    def batch(self, kind, name):
        if not self.is_owner():
            return self.reply(401, {"error": "no token"})
        objects = []
        for asked in json.loads(self.body)["objects"]:
            oid, size, part = asked["oid"], asked["size"], self.stub.part_bytes
            answer = {"oid": oid, "size": size}
            if oid not in self.stub.store:
                verify = {"href": "%s/%s.git/info/lfs/verify" % (self.stub.endpoint, name)}
                upload = {"href": "%s/upload/%s?signature=secret" % (self.stub.elsewhere, oid)}
                if part and size > part:
                    header = {"chunk_size": str(part)}
                    for number in range(1, -(-size // part) + 1):
                        header[str(number)] = "%s/part/%s/%d?signature=secret" % (self.stub.elsewhere, oid, number)
                    upload = {"href": "%s/complete/%s" % (self.stub.endpoint, oid), "header": header}
                answer["actions"] = {"upload": upload, "verify": verify}
            objects.append(answer)
        self.reply(200, {"transfer": "basic", "objects": objects})

    def complete(self, oid):
        parts = json.loads(self.body)["parts"]
        data = b"".join(self.stub.parts.get((oid, part["partNumber"]), b"") for part in parts)
        tags = all(part["etag"] == '"%d"' % part["partNumber"] for part in parts)
        if not tags or hashlib.sha256(data).hexdigest() != oid:
            return self.reply(400, {"error": "the parts are not the file"})
        self.stub.store[oid] = data
        self.reply(200, {})

    def verify(self, kind, name):
        asked = json.loads(self.body)
        found = self.stub.store.get(asked["oid"])
        good = found is not None and len(found) == asked["size"] and self.is_owner()
        self.reply(200 if good else 400, {})

    def commit(self, kind, name, revision):
        repo = self.repo_of(kind, name) if self.is_owner() else self.reply(401, {"error": "no token"})
        parent = repo and self.commit_of(repo, revision)
        if not parent:
            return
        files, summary = dict(repo.commits[parent]), None
        for line in self.body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "header":
                summary = value["summary"]
            elif operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"], validate=True)
            elif operation["key"] == "lfsFile" and value["oid"] in self.stub.store:
                files[value["path"]] = self.stub.store[value["oid"]]
            else:
                return self.reply(400, {"error": "operation %s of %s" % (operation["key"], value)})
        commit = repo.commit(files, revision, summary)
        url = "%s/%s/commit/%s" % (self.stub.endpoint, name, commit)
        self.reply(200, {"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})

    def validate(self):
        self.reply(200, {"errors": [], "warnings": []})

    API = r"/api/(?P<kind>models|datasets)/(?P<name>[^/]+/[^/]+)"
    GIT = r"/(?P<kind>datasets/)?(?P<name>[^/]+/[^/]+)"
    routes = [
        ("GET", API + r"(/revision/(?P<revision>[^/]+))?", info),
        ("GET", API + r"/tree/(?P<revision>[^/]+)", tree),
        ("GET|HEAD", GIT + r"/resolve/(?P<revision>[^/]+)/(?P<path>.+)", resolve),
        ("POST", r"/api/repos/create", create),
        ("POST", r"/api/validate-yaml", validate),
        ("POST", API + r"/preupload/(?P<revision>[^/]+)", preupload),
        ("POST", GIT + r"\.git/info/lfs/objects/batch", batch),
        ("POST", GIT + r"\.git/info/lfs/verify", verify),
        ("POST", r"/complete/(?P<oid>\w+)", complete),
        ("POST", API + r"/commit/(?P<revision>[^/]+)", commit),
    ]


class OtherHandler(Handler):
    """The host of large files. A token has no business here."""

    side = "other"

    def files(self, oid):
        path = parse_qs(self.split.query)["name"][0]
        fault = self.stub.next_fault(path)
        if self.answer_fault(fault):
            return
        if fault == "back":  # to the Hub, which must see no token either: it has gone through another's hands
            return self.reply(302, b"", {"Location": self.stub.endpoint + "/api/models/no/such"})
        self.deliver(self.stub.store[oid], {"ETag": '"anything"'}, fault)

    def upload(self, oid):
        if self.answer_fault(self.stub.next_fault("upload")):
            return
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self.reply(400, b"<Error>not the file</Error>")
        self.stub.store[oid] = self.body
        self.reply(200)

    def part(self, oid, number):
        if self.answer_fault(self.stub.next_fault("part")):
            return
        self.stub.parts[(oid, int(number))] = self.body
        self.reply(200, b"", {"ETag": '"%s"' % number})

    def anything(self):
        self.reply(200, b"not what you came for")

    routes = [
        ("GET|HEAD", r"/files/(?P<oid>\w+)", files),
        ("PUT", r"/upload/(?P<oid>\w+)", upload),
        ("PUT", r"/part/(?P<oid>\w+)/(?P<number>\d+)", part),
        ("GET|HEAD", r"/anything/.*", anything),
    ]
