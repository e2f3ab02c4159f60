"""Users and policies of a MinIO server.

MinIO takes these only over its own encrypted admin API, which the official SDK speaks. One request is read as JSON from
stdin, so that no secret is part of a command line; the answer is JSON on stdout.
"""

import json
import sys
import tempfile

from minio import MinioAdmin
from minio.credentials import StaticProvider


def ensure_users(admin, users):
    for user in users:
        admin.user_add(user["id"], user["secret"])
        statement = [
            {"Effect": "Allow", "Action": ["s3:ListBucket", "s3:GetBucketLocation", "s3:ListBucketMultipartUploads"],
             "Resource": [f"arn:aws:s3:::{bucket}" for bucket in user["buckets"]]},
            {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject",
                                           "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"],
             "Resource": [f"arn:aws:s3:::{bucket}/*" for bucket in user["buckets"]]},
        ]
        policy = {"Version": "2012-10-17", "Statement": statement}
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(policy, file)
            file.flush()
            admin.policy_add(user["policy"], file.name)
        if user["policy"] not in policies_of(admin, user["id"]):
            admin.policy_set(user["policy"], user=user["id"])


def policies_of(admin, user):
    info = json.loads(admin.user_info(user))
    return [name for name in info.get("policyName", "").split(",") if name]


def remove_users(admin, users):
    known = json.loads(admin.user_list())
    for user in users:
        if user in known:
            admin.user_remove(user)


def list_users(admin):
    known = json.loads(admin.user_list())
    return {"users": {user: entry.get("policyName", "").split(",") for user, entry in known.items()}}


def main():
    request = json.load(sys.stdin)
    admin = MinioAdmin(
        request["endpoint"],
        StaticProvider(request["root"]["id"], request["root"]["secret"]),
        region=request["region"],
        secure=False,
    )
    answer = {}
    if request["verb"] == "ensure":
        remove_users(admin, request.get("stale", []))
        ensure_users(admin, request["users"])
    elif request["verb"] == "list":
        answer = list_users(admin)
    else:
        raise SystemExit(f"unknown verb {request['verb']}")
    json.dump(answer, sys.stdout)


main()
