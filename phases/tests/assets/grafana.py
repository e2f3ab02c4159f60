#!/usr/bin/env python3
"""Stands in for Grafana, whose archive is not on every test machine: it goes by the files and the environment that the
real one goes by, and answers the requests that the task makes."""

import base64
import configparser
import glob
import http.server
import json
import os
import re
import sys
import urllib.request


def option(name):
    for at, word in enumerate(sys.argv):
        if word.startswith(f"--{name}="):
            return word.split("=", 1)[1]
        if word == f"--{name}":
            return sys.argv[at + 1]
    sys.exit(f"--{name} is missing")


settings = configparser.ConfigParser()
settings.read(option("config"))
provisioning = settings["paths"]["provisioning"]
password_file = os.path.join(settings["paths"]["data"], "password")
assert os.path.isdir(os.path.join(option("homepath"), "public"))

if "cli" in sys.argv:
    assert sys.argv[-3:] == ["admin", "reset-admin-password", "--password-from-stdin"], sys.argv
    with open(password_file, "w", encoding="utf-8") as file:
        file.write(sys.stdin.read())
    sys.exit()

assert len(os.environ["GF_SECURITY_SECRET_KEY"]) >= 20
# As the real one: only the very first start takes the password from the environment.
if not os.path.exists(password_file):
    with open(password_file, "w", encoding="utf-8") as file:
        file.write(os.environ["GF_SECURITY_ADMIN_PASSWORD"])


def provisioned(kind, key):
    for name in glob.glob(os.path.join(provisioning, kind, "*.yml")):
        with open(name, encoding="utf-8") as file:
            yield re.search(rf"\b{key}: '?([^'\s}}]+)", file.read()).group(1)


def dashboards(tag):
    for folder in provisioned("dashboards", "path"):
        for name in glob.glob(os.path.join(folder, "*.json")):
            with open(name, encoding="utf-8") as file:
                dashboard = json.load(file)
            if tag in dashboard["tags"]:
                yield {"uid": dashboard["uid"], "title": dashboard["title"]}


def datasource(uid):
    assert uid in provisioned("datasources", "uid")
    (url,) = provisioned("datasources", "url")
    with urllib.request.urlopen(f"{url}/api/v1/query?query=1") as answer:
        return {"status": "OK" if json.load(answer)["status"] == "success" else "ERROR", "message": ""}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with open(password_file, encoding="utf-8") as file:
            login = f"{settings['security']['admin_user']}:{file.read()}"
        known = self.headers.get("authorization") == "Basic " + base64.b64encode(login.encode()).decode()
        health = re.fullmatch(r"/api/datasources/uid/([^/]+)/health", self.path)
        if self.path == "/metrics":
            return self.answer(200, "grafana_build_info 1\n")
        if self.path == "/api/health":
            return self.answer(200, json.dumps({"database": "ok"}))
        if not known:
            return self.answer(401, json.dumps({"message": "Invalid username or password"}))
        if self.path == "/api/user":
            return self.answer(200, json.dumps({"login": "admin"}))
        if self.path.startswith("/api/search?"):
            return self.answer(200, json.dumps(list(dashboards(self.path.rsplit("tag=", 1)[1]))))
        if health:
            return self.answer(200, json.dumps(datasource(health.group(1))))
        return self.answer(404, "{}")

    def answer(self, status, body):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


address = (settings["server"]["http_addr"], int(settings["server"]["http_port"]))
http.server.ThreadingHTTPServer(address, Handler).serve_forever()
