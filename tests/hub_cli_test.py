#!/usr/bin/env python3
"""The programs and the Hugging Face Hub, which here is tests/support/hub_stub.py on the loopback.

    tests/hub_cli_test.py BIN_FOLDER [unittest arguments]

The stub proves itself against the Python client: where this interpreter can import huggingface_hub, the client fetches
from it, uploads to it, and shares a cache with our programs; else those tests are skipped. Only the standard library is
needed for the others.
"""

import hashlib
import importlib.util
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "support"))
from hub_stub import TOKEN, HubStub, git_blob, is_large  # noqa: E402

BIN = ""
NAME = "someone/a-model"
SMALL = json.dumps({"vit_hidden_dim": 12}, indent=4).encode()
LARGE = random.Random(1).randbytes(300_000)
FILES = {
    "config.json": SMALL,
    "model.safetensors": LARGE,
    "README.md": b"# A model\n",
    "empty.txt": b"",
    "data/train/00000.parquet": random.Random(2).randbytes(9_000),
    "data/train/odd name #1?.txt": b"named to be quoted\n",
}


class HubTest(unittest.TestCase):
    def setUp(self):
        self.hub = HubStub()
        self.addCleanup(self.hub.close)
        self.repo = self.hub.add_repo(NAME, FILES)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.home = os.path.realpath(folder.name)
        self.cache = os.path.join(self.home, "hub")

    def environment(self, **more):
        names = ("PATH", "LD_LIBRARY_PATH", "LANG", "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS")
        kept = {name: os.environ[name] for name in names if name in os.environ}
        return {
            **kept,
            "HOME": self.home,
            "HF_HOME": self.home,
            "HF_ENDPOINT": self.hub.endpoint,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DOWNLOAD_TIMEOUT": "1",
            "NO_PROXY": "*",
            "OMP_WAIT_POLICY": "passive",
            **more,
        }

    def start(self, *arguments, before=None, **environment):
        return subprocess.Popen(
            [os.path.join(BIN, arguments[0]), *arguments[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment(**environment),
            preexec_fn=before,
        )

    def run_program(self, *arguments, **environment):
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def download(self, *arguments, code=0, name=NAME, **environment):
        result = self.run_program("hub", "download", name, "--json", *arguments, **environment)
        self.assertEqual(result[0], code, result)
        self.assertEqual(self.hub.leaks(), [])
        self.check_cache()
        return json.loads(result[1]) if code == 0 else result[2]

    def check_cache(self):
        """No file of the cache that has a name has anything but the bytes of that name."""
        for folder, _, files in os.walk(self.cache):
            for file in files:
                path = os.path.join(folder, file)
                if os.path.basename(folder) == "blobs" and not file.endswith(".incomplete"):
                    with open(path, "rb") as opened:
                        data = opened.read()
                    expected = hashlib.sha256(data).hexdigest() if len(file) == 64 else git_blob(data)
                    self.assertEqual(file, expected, path)
                if "/snapshots/" in path:
                    self.assertTrue(os.path.exists(path), path + ": its blob is missing")

    def check_snapshot(self, found, files=None, expected=FILES):
        self.assertEqual(found["files"], sorted(expected if files is None else files))
        for path in found["files"]:
            with open(os.path.join(found["folder"], path), "rb") as opened:
                self.assertEqual(opened.read(), expected[path], path)

    def blob(self, path, suffix=""):
        data = FILES[path]
        name = hashlib.sha256(data).hexdigest() if is_large(path, len(data)) else git_blob(data)
        return os.path.join(self.cache, "models--someone--a-model", "blobs", name + suffix)


class Download(HubTest):
    def test_all_files_are_there_and_the_second_time_needs_one_request(self):
        found = self.download()
        self.check_snapshot(found)
        self.assertEqual(found["commit"], self.repo.refs["main"])
        self.assertTrue(os.path.islink(os.path.join(found["folder"], "data/train/00000.parquet")))
        before = len(self.hub.requests)
        self.check_snapshot(self.download())
        self.assertEqual(len(self.hub.requests) - before, 1)
        before = len(self.hub.requests)
        self.check_snapshot(self.download("--revision", found["commit"]))
        self.assertEqual(len(self.hub.requests), before)

    def test_patterns_choose(self):
        self.check_snapshot(self.download("--file", "*.json", "data/train/*.parquet"),
                            ["config.json", "data/train/00000.parquet"])
        self.assertFalse(os.path.exists(self.blob("model.safetensors")))
        self.assertIn("expected nothing.bin, found none", self.download("--file", "nothing.bin", code=1))
        self.assertIn("matches *.bin, found none", self.download("--file", "*.bin", code=1))

    def test_branches_tags_and_commits(self):
        first = self.repo.refs["main"]
        self.repo.refs["v1"] = first
        changed = {**FILES, "config.json": b"{}"}
        second = self.repo.commit(changed, "refs/pr/1", "a change")
        self.check_snapshot(self.download("--revision", "refs/pr/1"), expected=changed)
        self.assertEqual(self.download("--revision", "v1", "--file", "config.json")["commit"], first)
        self.check_snapshot(self.download("--revision", second), expected=changed)
        self.assertIn("RevisionNotFound", self.download("--revision", "v2", code=1))
        self.assertIn("expected a branch, a tag or a commit", self.download("--revision", "../main", code=1))

    def test_a_branch_that_moves(self):
        old = self.download("--file", "config.json")["commit"]
        self.repo.commit({**FILES, "config.json": b"{}"})
        found = self.download("--file", "config.json")
        self.assertNotEqual(found["commit"], old)
        with open(os.path.join(found["folder"], "config.json"), "rb") as opened:
            self.assertEqual(opened.read(), b"{}")

    def test_data_sets(self):
        self.hub.add_repo(NAME, {"a.jsonl": b"{}\n"}, kind="dataset")
        found = self.download("--type", "dataset")
        self.assertIn("datasets--someone--a-model", found["folder"])
        self.check_snapshot(found, expected={"a.jsonl": b"{}\n"})

    def test_private_repositories_need_the_token_and_only_the_hub_sees_it(self):
        self.repo.private = True
        self.assertIn("HF_TOKEN", self.download(code=1))
        self.check_snapshot(self.download(HF_TOKEN=TOKEN))
        self.assertGreater(self.hub.count("GET", "/files/"), 0)  # the other host was asked, without it
        with open(os.path.join(self.home, "token"), "w", encoding="utf-8") as file:
            file.write(TOKEN + "\n")
        self.repo.commit({**FILES, "config.json": b"{}"})
        self.download()
        self.assertIn("printable", self.download(HF_TOKEN="two\nlines: x", code=1))

    def test_offline_needs_all_of_it_in_the_cache(self):
        self.assertIn("not in the cache", self.download(HF_HUB_OFFLINE="1", code=1))
        self.download("--file", "config.json")
        before = len(self.hub.requests)
        self.check_snapshot(self.download("--file", "config.json", HF_HUB_OFFLINE="1"), ["config.json"])
        self.assertIn("lacks model.safetensors", self.download("--file", "*.safetensors", HF_HUB_OFFLINE="1", code=1))
        self.assertEqual(len(self.hub.requests), before)

    def test_a_hub_out_of_reach_is_said_and_the_cache_used(self):
        self.check_snapshot(self.download())
        nowhere = "http://127.0.0.1:9"
        begun = time.monotonic()
        code, out, err = self.run_program("hub", "download", NAME, "--json", HF_ENDPOINT=nowhere)
        self.assertLess(time.monotonic() - begun, 5)
        self.assertEqual(code, 0, err)
        self.assertIn("the Hub can't be reached", err)
        self.check_snapshot(json.loads(out))
        self.assertIn("not in the cache", self.download("--retries", "0", name="no/such", HF_ENDPOINT=nowhere, code=1))

    def test_what_is_refused_before_anything_is_asked(self):
        for endpoint in ("ftp://127.0.0.1", "http://user:pw@127.0.0.1", "not an address", "http://127.0.0.1/?a=b"):
            self.assertNotIn("pw", self.download(HF_ENDPOINT=endpoint, code=1))
        for name in ("noslash", "a/b/c", "../b", "a/..", "a/-b", "a/b--c", "a\n/b", "/etc/passwd"):
            self.assertEqual(self.run_program("hub", "download", name)[0], 2, name)
        self.assertEqual(self.hub.requests, [])


class Faults(HubTest):
    """0 bad files in the cache, 0 tokens at another host: both are looked at after every download."""

    def with_faults(self, path, faults, *arguments, code=0):
        self.hub.faults[path] = faults
        return self.download("--file", path, *arguments, code=code, HF_TOKEN=TOKEN)

    def test_what_may_pass_is_tried_again(self):
        for path, faults in (("README.md", ["500"]), ("README.md", ["cut"]), ("model.safetensors", ["503", "429"]),
                             ("model.safetensors", ["cut", "500", "cut"]), ("model.safetensors", ["stall"])):
            with self.subTest(path=path, faults=list(faults)):
                self.check_snapshot(self.with_faults(path, faults), [path])
                self.assertEqual(self.hub.faults[path], [])
            shutil.rmtree(self.cache)
        self.hub.faults["info"] = ["500"]
        self.download("--file", "config.json")

    def test_a_cut_body_goes_on_where_it_ended(self):
        self.check_snapshot(self.with_faults("model.safetensors", ["cut", "cut"]), ["model.safetensors"])
        ranges = [headers.get("range") for _, _, path, headers in self.hub.requests if "/files/" in path]
        self.assertEqual(ranges, [None, "bytes=150000-", "bytes=225000-"])

    def test_a_server_without_ranges_sends_all_of_it_again(self):
        self.check_snapshot(self.with_faults("model.safetensors", ["cut", "ignore-range"]), ["model.safetensors"])

    def test_an_answer_without_tags_is_good_if_its_bytes_are(self):
        self.check_snapshot(self.with_faults("README.md", ["no-etag"]), ["README.md"])

    def test_what_will_not_pass_is_refused(self):
        expected = {
            "short": "expected",
            "long": "found more|expected size",
            "flip": "expected (SHA-256|git's digest)",
            "html": "404",
            "page": "expected",
            "loop": "redirects",
            "elsewhere": "expected",
            "file-url": "http or https",
            "user-url": "without a user name",
            "endless": "found more",
        }
        for path in ("model.safetensors", "README.md"):
            for fault, words in expected.items():
                with self.subTest(path=path, fault=fault):
                    message = self.with_faults(path, ["always", fault], "--retries", "0", code=1)
                    self.assertRegex(message, words)
                    self.assertNotIn("signature", message)
                    self.assertNotIn("secret", message)
                    self.assertFalse(os.path.exists(self.blob(path)))
        self.hub.faults.clear()
        self.check_snapshot(self.download())  # and nothing that was left behind is in the way

    def test_a_range_that_was_not_asked_for(self):
        message = self.with_faults("model.safetensors", ["cut", "always", "wrong-range"], "--retries", "1", code=1)
        self.assertIn("expected bytes 150000-299999/300000", message)

    def test_a_token_that_has_left_the_hub_does_not_come_back(self):
        self.with_faults("model.safetensors", ["back"], code=1)
        self.assertNotIn("authorization", self.hub.requests[-1][3])
        self.assertIn("/no/such", self.hub.requests[-1][2])

    def test_what_an_earlier_run_left_is_continued_or_thrown_away(self):
        whole = FILES["model.safetensors"]
        for left, ranges in ((whole[:1000], ["bytes=1000-"]), (bytes(1000), ["bytes=1000-", None]), (whole, []),
                             (whole + b"more", [None]), (bytes(len(whole)), [None])):
            os.makedirs(os.path.dirname(self.blob("model.safetensors")), exist_ok=True)
            with open(self.blob("model.safetensors", ".incomplete"), "wb") as file:
                file.write(left)
            self.hub.requests.clear()
            self.check_snapshot(self.download("--file", "model.safetensors"), ["model.safetensors"])
            asked = [headers.get("range") for _, _, path, headers in self.hub.requests if "/files/" in path]
            self.assertEqual(asked, ranges)
            shutil.rmtree(self.cache)

    def test_a_file_of_the_cache_that_was_cut_is_fetched_again(self):
        self.download()
        os.truncate(self.blob("model.safetensors"), 10)
        self.check_snapshot(self.download())

    def test_listings_that_lead_elsewhere_are_refused(self):
        good = {"type": "file", "path": "x", "size": 1, "oid": "0" * 40}
        outside = os.path.join(self.home, "outside")
        for change in ({"path": "../x"}, {"path": "a/../../x"}, {"path": outside}, {"path": "a//b"}, {"path": ""},
                       {"path": "."}, {"path": "a\\..\\b"}, {"path": "a\nb"}, {"path": "a" * 300}, {"path": "README.md"},
                       {"oid": "../../x"}, {"oid": "0" * 39}, {"size": -1}, {"size": 1.5}, {"size": 2**60},
                       {"lfs": {"oid": "../x", "size": 1, "pointerSize": 1}}, {"path": None}, {"type": 7}):
            self.repo.extra_entries = [{**good, **change}]
            with self.subTest(change=change):
                self.assertIn("expected", self.download(code=1))
        self.assertEqual(os.listdir(self.home), [])
        self.repo.extra_entries = [{**good, "path": "README.md/x"}]  # below a file
        self.download("--retries", "0", code=1)

    def test_a_full_disk_is_said_before_the_download(self):
        huge = {"type": "file", "path": "huge.bin", "size": 2**49, "oid": "0" * 40}
        self.repo.extra_entries = [huge]
        self.assertIn("expected room for %d bytes" % 2**49, self.download("--file", "huge.bin", code=1))

    def test_a_disk_that_fills_up_while_writing(self):
        def fill():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the limit is then an error of the write, as a full disk is
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

        process = self.start("hub", "download", NAME, before=fill)
        err = process.communicate(timeout=60)[1]
        self.assertEqual(process.returncode, 1)
        self.assertRegex(err, r"incomplete: can't be written: .* \(byte 100000 of 300000, \d+ free\)")
        self.check_cache()
        self.check_snapshot(self.download())
        self.assertEqual(self.hub.requests[-1][3]["range"], "bytes=100000-")

    def test_two_processes_fetch_a_file_once(self):
        self.hub.pace = 0.02
        processes = [self.start("hub", "download", NAME, "--json") for _ in range(3)]
        for process in processes:
            out, err = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 0, err)
            self.check_snapshot(json.loads(out))
        self.check_cache()
        self.assertEqual(self.hub.count("GET", "/files/" + hashlib.sha256(LARGE).hexdigest()), 1)

    def test_killed_at_fifty_instants(self):
        self.hub.pace = 0.001
        draw = random.Random(3)
        killed = 0
        while killed < 50:
            process = self.start("hub", "download", NAME)
            # Some time after so many pieces: before the first, in the middle of a file, or when it gets its name.
            pieces = self.hub.pieces + draw.randint(0, len(LARGE) // self.hub.PIECE + 1)
            while self.hub.pieces < pieces and process.poll() is None:
                time.sleep(0.0005)
            time.sleep(draw.uniform(0, 0.01))
            process.kill()
            process.communicate()
            self.check_cache()
            killed += process.returncode < 0
            if process.returncode == 0:
                shutil.rmtree(self.cache)
        self.check_snapshot(self.download())
        resumed = [headers for _, _, path, headers in self.hub.requests if "/files/" in path and "range" in headers]
        self.assertGreater(len(resumed), 10)


class Upload(HubTest):
    TARGET = "someone/results"

    def setUp(self):
        super().setUp()
        self.hub.store.clear()  # or the Hub would know the files' content already
        self.folder = os.path.join(self.home, "to upload")
        for path, data in FILES.items():
            self.write(path, data)
        # What nobody means to publish.
        for path in [".git/config", "vendor/tool/.git/config", "data/.cache/huggingface/token", "sub/.git"]:
            self.write(path, b"[user]\n")

    def write(self, path, data):
        path = os.path.join(self.folder, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)

    def upload(self, *arguments, code=0, **environment):
        result = self.run_program("hub", "upload", self.folder, self.TARGET, "--json", *arguments,
                                  **{"HF_TOKEN": TOKEN, **environment})
        self.assertEqual(result[0], code, result)
        self.assertEqual(self.hub.leaks(), [])
        return json.loads(result[1]) if code == 0 else result[2]

    def uploaded(self, kind="model"):
        repo = self.hub.repos[(kind, self.TARGET)]
        files = dict(repo.commits[repo.refs["main"]])
        files.pop(".gitattributes")
        return files

    def test_one_commit_holds_every_file(self):
        self.hub.faults["upload"] = ["500"]
        done = self.upload("--message", "All of it")
        self.assertEqual(self.uploaded(), FILES)
        repo = self.hub.repos[("model", self.TARGET)]
        self.assertEqual((len(repo.commits), repo.messages[done["commit"]], repo.private), (2, "All of it", False))
        self.assertEqual((done["files"], done["files_as_were"]), (len(FILES), 0))
        sizes = [headers["content-length"] for _, method, _, headers in self.hub.requests if method == "PUT"]
        self.assertEqual(sorted(sizes), ["300000", "9000", "9000"])  # one of them twice

    def test_only_what_changed_goes_again(self):
        self.upload()
        self.write("config.json", b"{}")
        self.hub.requests.clear()
        done = self.upload()
        self.assertEqual((done["files"], done["files_as_were"]), (1, len(FILES) - 1))
        self.assertEqual(self.uploaded(), {**FILES, "config.json": b"{}"})
        self.assertEqual(self.hub.count("PUT", ""), 0)
        done = self.upload()
        self.assertEqual((done["files"], done["commit"]), (0, ""))
        self.assertEqual(len(self.hub.repos[("model", self.TARGET)].commits), 3)

    def test_large_files_go_in_parts_where_the_hub_wants_parts(self):
        self.hub.part_bytes = 70_000
        self.hub.faults["part"] = [None, "503"]
        self.upload()
        self.assertEqual(self.uploaded(), FILES)
        self.assertEqual(self.hub.count("PUT", "/part/"), 6)

    def test_a_folder_may_hold_more_files_than_a_process_may_open(self):
        many = {f"few/{i}.bin": bytes([i]) for i in range(100)}
        for path, data in many.items():
            self.write(path, data)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        done = self.run_program("hub", "upload", self.folder, self.TARGET, HF_TOKEN=TOKEN,
                                before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (40, hard)))
        self.assertEqual(done[0], 0, done)
        self.assertEqual(self.uploaded(), {**FILES, **many})

    def test_private_repositories_and_data_sets(self):
        self.upload("--private", "--type", "dataset")
        self.assertTrue(self.hub.repos[("dataset", self.TARGET)].private)
        self.assertEqual(self.uploaded("dataset"), FILES)
        self.hub.add_repo(self.TARGET, {"x": b""})
        self.assertIn("expected a private repository, found a public one", self.upload("--private", code=1))
        self.assertEqual(self.hub.repos[("model", self.TARGET)].refs.keys(), {"main"})
        self.assertEqual(len(self.hub.repos[("model", self.TARGET)].commits), 1)

    def test_what_is_refused(self):
        self.assertIn("expected a token in HF_TOKEN", self.upload(HF_TOKEN="", code=1))
        self.assertIn("401", self.upload(HF_TOKEN="hf_of_another", code=1))
        self.assertIn("HF_HUB_OFFLINE", self.upload(HF_HUB_OFFLINE="1", code=1))
        self.assertIn("RevisionNotFound", self.upload("--revision", "no-such", code=1))
        os.mkfifo(os.path.join(self.folder, "pipe"))  # not a file: left out
        self.upload()
        self.assertEqual(self.uploaded(), FILES)
        self.folder = os.path.join(self.home, "none")
        self.assertIn("expected a folder", self.upload(code=1))
        os.mkdir(self.folder)
        self.assertIn("expected files to upload", self.upload(code=1))

    def test_what_was_uploaded_comes_back(self):
        self.upload("--private")
        found = self.download(name=self.TARGET, HF_TOKEN=TOKEN)
        self.check_snapshot(found, expected={**FILES, ".gitattributes": b"*.safetensors filter=lfs\n"})


class Programs(HubTest):
    """What uses hub/: models by name, and the push at the end of training."""

    MODEL = os.path.join(ROOT, "tests", "fixtures", "tiny-v1", "base")
    TRAIN = os.path.join(ROOT, "tests", "fixtures", "train-v1")
    TOKENIZER = os.path.join(ROOT, "tests", "fixtures", "tokenizer", "tiny", "tokenizer.json")
    PICTURE = os.path.join(ROOT, "tests", "fixtures", "images", "files", "png-112x112.png")

    def add_model(self):
        files = {}
        for name, path in (("config.json", self.MODEL), ("model.safetensors", self.MODEL), ("tokenizer.json", "")):
            with open(os.path.join(path, name) if path else self.TOKENIZER, "rb") as file:
                files[name] = file.read()
        return self.hub.add_repo("someone/tiny", files)

    def done(self, *arguments, **environment):
        code, out, err = self.run_program(*arguments, **environment)
        self.assertEqual(code, 0, err)
        self.assertEqual(self.hub.leaks(), [])
        return out

    def test_models_are_loaded_by_name(self):
        self.add_model()
        ask = ("--image", self.PICTURE, "--max_new_tokens", "3", "--greedy", "--generations", "1", "--json")
        local = json.loads(self.done("generate", "--checkpoint", self.MODEL, "--tokenizer", self.TOKENIZER, *ask))
        for environment in ({}, {"HF_HUB_OFFLINE": "1"}):
            ours = json.loads(self.done("generate", "--hf_model", "someone/tiny", *ask, **environment))
            self.assertEqual(ours["generations"], local["generations"])
        here = json.loads(self.done("inspect", "checkpoint", "--hf_model", "someone/tiny", "--json"))
        there = json.loads(self.done("inspect", "checkpoint", self.MODEL, "--json"))
        self.assertEqual(here["tensors"], there["tensors"])
        self.assertEqual(self.run_program("generate", "--hf_model", "someone/none", *ask)[0], 1)
        self.assertEqual(self.run_program("generate", "--hf_model", "x", "--checkpoint", "y", *ask)[0], 2)

    def test_what_was_trained_is_pushed(self):
        out = os.path.join(self.home, "out")
        run = ("train", "--batches", os.path.join(self.TRAIN, "batches.safetensors"), "--checkpoint", self.TRAIN,
               "--dtype", "f32", "--max_training_steps", "1", "--out", out, "--hub_repo", "someone/trained")
        code, _, err = self.run_program(*run)
        self.assertEqual((code, "HF_TOKEN" in err, os.path.exists(out)), (1, True, False))
        text = self.done(*run, HF_TOKEN=TOKEN)
        self.assertIn("Pushed to %s/someone/trained" % self.hub.endpoint, text)
        repo = self.hub.repos[("model", "someone/trained")]
        files = repo.commits[repo.refs["main"]]
        self.assertEqual(sorted(files), [".gitattributes", "README.md", "config.json", "model.safetensors"])
        with open(os.path.join(out, "last", "model.safetensors"), "rb") as file:
            self.assertEqual(files["model.safetensors"], file.read())
        self.assertRegex(files["README.md"].decode(), "^---\nlibrary_name: nanovlm\nlicense: mit\n(.*\n)*---\n")
        self.assertEqual(repo.messages[repo.refs["main"]], "Upload nanoVLM using push_to_hub")
        self.done("inspect", "checkpoint", "--hf_model", "someone/trained")
        code, _, err = self.run_program(*run, HF_TOKEN="hf_of_another")
        self.assertEqual((code, "last: saved, but not pushed: " in err), (1, True), err)


def bytes_below(*folder, change=lambda path: path):
    """The files of a fixture by their names, changed where a repository names them otherwise."""
    folder = os.path.join(ROOT, "tests", "fixtures", *folder)
    files = {}
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), "rb") as file:
            files[change(name)] = file.read()
    return files


class WholeRun(HubTest):
    """Everything that a run needs and leaves, by names on the Hub alone: backbones, tokenizer, data set, push."""

    SETTINGS = {
        "vlm": {"vit_model_type": "someone/vision", "lm_model_type": "someone/language", "vit_img_size": 32,
                "lm_tokenizer": "someone/tokenizer", "lm_vocab_size": 512, "vit_patch_size": 8,
                "IMAGE_TOKEN_LENGTH": 4, "lm_max_length": 512, "TOTAL_SEQUENCE_LENGTH": 516},
        "train": {"batch_size": 4, "epochs": 1, "val_ratio": 0.1, "max_training_steps": 2, "lr_backbones": 0.001,
                  "workers": 0, "max_no_loss_share": 0.5},
    }

    def setUp(self):
        super().setUp()
        parquet = bytes_below("data")
        self.hub.add_repo("someone/vision", bytes_below("backbones", "siglip"))
        self.hub.add_repo("someone/language", bytes_below("backbones", "llama-sharded"))
        self.hub.add_repo("someone/tokenizer", bytes_below("tokenizer", "tiny"))
        self.hub.add_repo("someone/cauldron", {
            "README.md": b"# Data\n",
            "ai2d/train-00000-of-00002-0a1b.parquet": parquet["cauldron.parquet"],
            "ai2d/train-00001-of-00002-2c3d.parquet": parquet["cauldron-zstd.parquet"],
            "ai2d/test-00000-of-00001.parquet": parquet["cauldron-gzip.parquet"],
            "vqav2/train-00000-of-00001.parquet": parquet["cauldron-gzip.parquet"],
        }, kind="dataset")
        self.hub.add_repo("someone/mmstar", {"mmstar.parquet": parquet["mmstar.parquet"]}, kind="dataset")
        self.config = os.path.join(self.home, "config.json")
        with open(self.config, "w", encoding="utf-8") as file:
            json.dump(self.SETTINGS, file)
        file = os.path.join(ROOT, "tests", "fixtures", "data", "mmstar.parquet")
        if "found one without Arrow" in self.run_program("inspect", "data", file, "--text_only")[2]:
            self.skipTest("a build that does not read Parquet")

    def done(self, *arguments, code=0, **environment):
        result = self.run_program(*arguments, **environment)
        self.assertEqual(result[0], code, result)
        self.assertEqual(self.hub.leaks(), [])
        self.check_cache()
        return result[1] if code == 0 else result[2]

    def train(self, out, *arguments, **environment):
        self.done("train", "--config", self.config, "--train_dataset", "someone/cauldron:ai2d@0.5",
                  "someone/cauldron:vqav2", "--out", os.path.join(self.home, out), *arguments, **environment)

    def weights(self, out):
        with open(os.path.join(self.home, out, "last", "model.safetensors"), "rb") as file:
            return file.read()

    def test_a_run_by_names_alone_and_again_without_a_network(self):
        self.train("first", "--hub_repo", "someone/trained", HF_TOKEN=TOKEN)
        asked = {path for _, method, path, _ in self.hub.requests if method == "GET"}
        self.assertFalse([path for path in asked if "test-00000" in path])  # only what the run needs
        pushed = self.hub.repos[("model", "someone/trained")]
        files = pushed.commits[pushed.refs["main"]]
        self.assertEqual(files["model.safetensors"], self.weights("first"))
        self.assertEqual(files["tokenizer.json"], bytes_below("tokenizer", "tiny")["tokenizer.json"])
        self.assertEqual(json.loads(files["config.json"])["lm_hidden_dim"], 48)

        self.hub.requests.clear()
        self.train("again", HF_HUB_OFFLINE="1")
        self.assertEqual(self.hub.requests, [])
        self.assertEqual(self.weights("again"), self.weights("first"))

        ask = ("--hf_model", "someone/trained", "--image", Programs.PICTURE, "--max_new_tokens", "3", "--greedy",
               "--generations", "1", "--json")
        online = self.done("generate", *ask)
        self.hub.requests.clear()
        self.assertEqual(json.loads(self.done("generate", *ask, HF_HUB_OFFLINE="1"))["generations"],
                         json.loads(online)["generations"])
        self.assertEqual(self.hub.requests, [])
        result = self.done("eval", "--hf_model", "someone/trained", "--dataset", "someone/mmstar", "--split", "val",
                           "--task", "mmstar", "--json")
        self.assertEqual(json.loads(result)["questions"], 16)

    def test_a_resumed_run_keeps_its_checkpoint_s_tokenizer(self):
        self.train("first", "--hub_repo", "someone/trained", HF_TOKEN=TOKEN)
        for start in (os.path.join(self.home, "first", "last"), "someone/trained"):
            self.train("second", "--checkpoint", start)
            for name, data in bytes_below("tokenizer", "tiny").items():
                with open(os.path.join(self.home, "second", "last", name), "rb") as file:
                    self.assertEqual(file.read(), data, name)

    def test_data_is_looked_at_by_name(self):
        sheet = os.path.join(self.home, "sheet.png")
        look = ("inspect", "data", "someone/cauldron:all", "--image_size", "8", "--json")
        online = self.done(*look, "--sheet", sheet)
        self.assertEqual(sorted(json.loads(online)["sources"]), ["ai2d", "docvqa", "synthetic", "vqav2"])
        self.assertEqual(json.loads(online)["all"]["records"], 3 * 64)
        self.assertTrue(os.path.exists(sheet))
        self.hub.requests.clear()
        self.assertEqual(self.done(*look, HF_HUB_OFFLINE="1"), online)
        self.assertEqual(self.hub.requests, [])

    def test_what_a_name_does_not_find_is_said_with_what_there_is(self):
        at = "inspect: someone/cauldron at main: expected a file that matches "
        for arguments, message in (
            (["someone/cauldron"], at + "train*.parquet, data/train*.parquet, *.parquet, found none among README.md, "
             "ai2d/, vqav2/"),
            (["someone/cauldron:nosuch"], at + "nosuch/train*.parquet, found none among README.md, ai2d/, vqav2/"),
            (["someone/cauldron:vqav2", "--split", "val"], at + "vqav2/val*.parquet, found none among "
             "train-00000-of-00001.parquet"),
            (["someone/nothing"], "RepoNotFound"),
            (["nothing"], "inspect: nothing: expected a data set, found no file and no folder of this name"),
        ):
            with self.subTest(arguments=arguments):
                said = self.done("inspect", "data", *arguments, "--text_only", code=1)
                self.assertIn(message, said)
                self.assertEqual(said.count("\n"), 1)
        said = self.done("train", "--config", self.config, "--train_dataset", "someone/cauldron:ai2d", "--out",
                         os.path.join(self.home, "none"), "--lm_model_type", "someone/none", code=1)
        self.assertIn("--lm_model_type", said)
        self.assertIn("RepoNotFound", said)
        self.assertFalse(os.path.exists(os.path.join(self.home, "none")))


@unittest.skipUnless(importlib.util.find_spec("huggingface_hub"), "huggingface_hub is not installed")
class PythonClient(HubTest):
    """The client against the stub, and on one cache with our programs."""

    def python(self, code, **environment):
        process = subprocess.run(
            [sys.executable, "-c", "from huggingface_hub import *\n" + code],
            text=True, capture_output=True, timeout=60, check=False, env=self.environment(**environment),
        )
        self.assertEqual(process.returncode, 0, process.stderr)
        self.assertEqual(self.hub.leaks(), [])
        return process.stdout.strip()

    def test_what_it_fetched_is_found_without_a_network(self):
        folder = self.python("print(snapshot_download(%r))" % NAME)
        self.assertEqual(self.download(HF_HUB_OFFLINE="1")["folder"], folder)
        self.check_snapshot(self.download(HF_HUB_OFFLINE="1"))
        self.hub.requests.clear()
        self.download("--revision", self.repo.refs["main"])
        self.assertEqual(self.hub.requests, [])

    def test_what_we_fetched_it_finds_without_a_network(self):
        found = self.download()
        offline = {"HF_HUB_OFFLINE": "1"}
        self.assertEqual(self.python("print(snapshot_download(%r))" % NAME, **offline), found["folder"])
        one = self.python("print(hf_hub_download(%r, 'model.safetensors'))" % NAME, **offline)
        self.assertEqual(one, os.path.join(found["folder"], "model.safetensors"))
        code = "[repo] = scan_cache_dir().repos; print(repo.repo_id, repo.nb_files, repo.refs.keys(), scan_cache_dir().warnings)"
        self.assertEqual(self.python(code, **offline), "%s %d %s []" % (NAME, len(FILES), {"main": 0}.keys()))
        self.hub.requests.clear()
        self.python("snapshot_download(%r)" % NAME)
        self.assertEqual(self.hub.count("GET", "/resolve/") + self.hub.count("GET", "/files/"), 0)

    def test_what_we_found_missing_it_knows(self):
        self.download("--file", "processor.json", code=1)
        self.download("--file", "config.json")
        code = "print(try_to_load_from_cache(%r, 'processor.json') is _CACHED_NO_EXIST)" % NAME
        self.assertEqual(self.python("from huggingface_hub import _CACHED_NO_EXIST\n" + code), "True")

    def test_both_at_once(self):
        self.hub.pace = 0.005
        ours = self.start("hub", "download", NAME, "--json")
        self.python("snapshot_download(%r)" % NAME)
        out, err = ours.communicate(timeout=60)
        self.assertEqual(ours.returncode, 0, err)
        self.check_snapshot(json.loads(out))
        self.check_cache()

    def test_its_uploads(self):
        folder = os.path.join(self.home, "folder")
        os.makedirs(os.path.join(folder, "data"))
        files = {"config.json": SMALL, "data/model.safetensors": LARGE}
        for path, data in files.items():
            with open(os.path.join(folder, path), "wb") as file:
                file.write(data)
        self.hub.store.clear()
        self.hub.part_bytes = 70_000
        code = "create_repo('someone/more', private=True); print(create_commit('someone/more', [CommitOperationAdd("
        code += "path, %r + '/' + path) for path in %r], commit_message='More').oid)" % (folder, list(files))
        commit = self.python(code, HF_TOKEN=TOKEN)
        repo = self.hub.repos[("model", "someone/more")]
        self.assertEqual({path: repo.commits[commit][path] for path in files}, files)
        self.assertTrue(repo.private)
        self.assertEqual(self.hub.count("PUT", "/part/"), 5)


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    BIN = os.path.abspath(sys.argv.pop(1))
    unittest.main()
