"""An object store in this process with the JSON API of Google Cloud Storage, for the requests of its clients."""

import contextlib
import http.server
import json
import re
import sys
import threading
import urllib.parse


class Store:
    """Objects of all buckets by (bucket, name): their bytes and generation."""

    def __init__(self):
        self.objects, self.uploads, self.generation = {}, {}, 0
        self.lock = threading.Lock()

    def put(self, bucket, name, data):
        with self.lock:
            self.generation += 1
            self.objects[bucket, name] = data, self.generation
        return self.describe(bucket, name)

    def describe(self, bucket, name):
        data, generation = self.objects[bucket, name]
        return {
            "kind": "storage#object",
            "bucket": bucket,
            "name": name,
            "size": str(len(data)),
            "generation": str(generation),
            "metageneration": "1",
            "updated": "2026-01-01T00:00:00.000Z",
            "timeCreated": "2026-01-01T00:00:00.000Z",
        }

    def names(self, bucket):
        return sorted(name for where, name in self.objects if where == bucket)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store = None

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def missing(self):
        self.answer(404, {"error": {"code": 404, "message": "Not Found"}})

    def handle_any(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urllib.parse.urlsplit(self.path)
        query = {key: values[0] for key, values in urllib.parse.parse_qs(url.query).items()}
        for pattern, action in ROUTES:
            method, _, path = pattern.partition(" ")
            if method == self.command and (match := re.fullmatch(path, url.path)):
                return action(self, *map(urllib.parse.unquote, match.groups()), query=query, body=body)
        return self.answer(501, {"error": {"code": 501, "message": f"{self.command} {self.path}"}})

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = handle_any

    def bucket(self, bucket, query, body):
        self.answer(200, {"kind": "storage#bucket", "name": bucket, "id": bucket, "location": "US"})

    def layout(self, bucket, query, body):
        self.answer(200, {"bucket": bucket, "location": "US", "hierarchicalNamespace": {"enabled": False}})

    def listing(self, bucket, query, body):
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        items, prefixes = [], set()
        for name in self.store.names(bucket):
            if not name.startswith(prefix) or not query.get("startOffset", "") <= name < query.get(
                "endOffset", "\uffff"
            ):
                continue
            head, separator, _ = name[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
            if separator:
                prefixes.add(prefix + head + delimiter)
            else:
                items.append(self.store.describe(bucket, name))
        self.answer(200, {"kind": "storage#objects", "items": items, "prefixes": sorted(prefixes)})

    def blob(self, bucket, name, query, body):
        if (bucket, name) not in self.store.objects:
            return self.missing()
        if query.get("alt") != "media":
            return self.answer(200, self.store.describe(bucket, name))
        data, generation = self.store.objects[bucket, name]
        headers = {"x_goog_generation": str(generation), "x_goog_stored_content_length": str(len(data))}
        if match := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "")):
            first, last = match.groups()
            if not first:
                start, stop = max(0, len(data) - int(last)), len(data)
            else:
                start, stop = int(first), min(int(last) + 1 if last else len(data), len(data))
            if start >= len(data) and data:
                return self.answer(416)
            headers["Content_Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
            return self.answer(206, data[start:stop], **headers)
        return self.answer(200, data, **headers)

    def delete(self, bucket, name, query, body):
        with self.store.lock:
            existed = self.store.objects.pop((bucket, name), None)
        return self.answer(204) if existed else self.missing()

    def upload(self, bucket, query, body):
        if "upload_id" in query:
            return self.resume(bucket, query, body)
        kind, name = query["uploadType"], query.get("name")
        if kind == "resumable":
            name = name or json.loads(body)["name"]
            number = str(len(self.store.uploads))
            self.store.uploads[number] = [bucket, name, b""]
            host = self.headers["Host"]
            return self.answer(200, Location=f"http://{host}/upload/storage/v1/b/{bucket}/o?upload_id={number}")
        if kind == "multipart":
            boundary = re.search(r"boundary=['\"]?([^'\";]+)", self.headers["Content-Type"])[1].encode()
            _, described, content, _ = body.split(b"--" + boundary)
            name = json.loads(described.partition(b"{")[1] + described.partition(b"{")[2])["name"]
            body = re.split(rb"\r?\n\r?\n", content, maxsplit=1)[1]
            body = re.sub(rb"\r?\n$", b"", body)
        wanted = query.get("ifGenerationMatch")
        present = self.store.objects.get((bucket, name), (b"", 0))[1]
        if wanted is not None and int(wanted) != present:
            return self.answer(412, {"error": {"code": 412, "message": "conditionNotMet"}})
        return self.answer(200, self.store.put(bucket, name, body))

    def resume(self, bucket, query, body):
        upload = self.store.uploads[query["upload_id"]]
        upload[2] += body
        if not self.headers.get("Content-Range", "").endswith("*"):
            return self.answer(200, self.store.put(*upload))
        return self.answer(308, Range=f"bytes=0-{len(upload[2]) - 1}")

    def copy(self, bucket, name, into, new, query, body):
        if (bucket, name) not in self.store.objects:
            return self.missing()
        described = self.store.put(into, new, self.store.objects[bucket, name][0])
        size = described["size"]
        return self.answer(200, {"done": True, "objectSize": size, "totalBytesRewritten": size, "resource": described})


ROUTES = [
    (r"GET /storage/v1/b/([^/]+)", Handler.bucket),
    (r"GET /storage/v1/b/([^/]+)/storageLayout", Handler.layout),
    (r"GET /storage/v1/b/([^/]+)/o/?", Handler.listing),
    (r"GET /(?:download/)?storage/v1/b/([^/]+)/o/([^/]+)", Handler.blob),
    (r"DELETE /storage/v1/b/([^/]+)/o/([^/]+)", Handler.delete),
    (r"POST /upload/storage/v1/b/([^/]+)/o", Handler.upload),
    (r"PUT /upload/storage/v1/b/([^/]+)/o", Handler.resume),
    (r"POST /storage/v1/b/([^/]+)/o/([^/]+)/(?:copyTo|rewriteTo)/b/([^/]+)/o/([^/]+)", Handler.copy),
]


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client may stop reading an answer
            super().handle_error(request, client_address)


@contextlib.contextmanager
def served():
    """Yield an empty store at an address of this machine, and the environment variables that name it."""
    store = Store()
    server = Server(("127.0.0.1", 0), type("Bound", (Handler,), {"store": store}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield (
            store,
            {
                "STORAGE_EMULATOR_HOST": address,  # gcsfs and google-cloud-storage
                "TENSORSTORE_GCS_HTTP_URL": address,
                "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
                "GOOGLE_CLOUD_PROJECT": "tests",
            },
        )
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
