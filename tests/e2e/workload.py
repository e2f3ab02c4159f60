"""What a user of the cloud leaves in it: a run with a metric (PostgreSQL) and an artifact (the object store).

usage: workload.py write|check [MLFLOW_URL]
"""

import json
import sys
import urllib.error
import urllib.request

EXPERIMENT = "fresh-machine"
ARTIFACT = bytes(range(256)) * 4096


class Mlflow:
    def __init__(self, url):
        self.url = url

    def request(self, method, path, body=None):
        request = urllib.request.Request(self.url + path, method=method, data=body)
        if body is not None:
            request.add_header("Content-Type", "application/json" if body[:1] == b"{" else "application/octet-stream")
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.read()

    def call(self, method, endpoint, **fields):
        body = json.dumps(fields).encode() if method == "POST" else None
        return json.loads(self.request(method, f"/api/2.0/mlflow/{endpoint}", body))

    def artifact(self, experiment_id, run_id):
        return f"/api/2.0/mlflow-artifacts/artifacts/{experiment_id}/{run_id}/artifacts/blob.bin"


def write(mlflow):
    experiment_id = mlflow.call("POST", "experiments/create", name=EXPERIMENT)["experiment_id"]
    run_id = mlflow.call("POST", "runs/create", experiment_id=experiment_id, start_time=1)["run"]["info"]["run_id"]
    mlflow.call("POST", "runs/log-metric", run_id=run_id, key="answer", value=42.0, timestamp=1)
    mlflow.request("PUT", mlflow.artifact(experiment_id, run_id), ARTIFACT)


def check(mlflow):
    experiment = mlflow.call("GET", f"experiments/get-by-name?experiment_name={EXPERIMENT}")["experiment"]
    runs = mlflow.call("POST", "runs/search", experiment_ids=[experiment["experiment_id"]])["runs"]
    [run] = runs
    metrics = {metric["key"]: metric["value"] for metric in run["data"]["metrics"]}
    if metrics != {"answer": 42.0}:
        sys.exit(f"error: the run's metrics are {metrics}")
    if mlflow.request("GET", mlflow.artifact(experiment["experiment_id"], run["info"]["run_id"])) != ARTIFACT:
        sys.exit("error: the artifact's bytes differ")


if __name__ == "__main__":
    verb, url = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "http://127.0.0.1:5000"
    try:
        {"write": write, "check": check}[verb](Mlflow(url))
    except urllib.error.URLError as error:
        detail = error.read().decode(errors="replace") if isinstance(error, urllib.error.HTTPError) else ""
        sys.exit(f"error: {verb} through {url}: {error} {detail}")
