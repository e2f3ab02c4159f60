"""Users and policies of a MinIO server.

MinIO takes these only over its own encrypted admin API, which the official SDK speaks. One request is read as JSON from
stdin, so that no secret is part of a command line.
"""

import json
import sys

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
        admin.policy_add(user["policy"], policy=policy)
        if user["policy"] not in policies_of(admin, user["id"]):
            admin.policy_set(user["policy"], user=user["id"])


def policies_of(admin, user):
    info = json.loads(admin.user_info(user))
    return [name for name in info.get("policyName", "").split(",") if name]


def remove_users(admin, users):
    """Each with its policy, which has its name."""
    known, policies = json.loads(admin.user_list()), json.loads(admin.policy_list())
    for user in users:
        if user in known:
            admin.user_remove(user)
        if user in policies:
            admin.policy_remove(user)


def main():
    request = json.load(sys.stdin)
    admin = MinioAdmin(
        endpoint=request["endpoint"],
        credentials=StaticProvider(request["root"]["id"], request["root"]["secret"]),
        region=request["region"],
        secure=False,
    )
    remove_users(admin, request["stale"])
    ensure_users(admin, request["users"])


main()
