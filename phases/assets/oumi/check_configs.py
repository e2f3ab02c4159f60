"""Reads Oumi's configuration files with Oumi's own parser, which says what is wrong with them.

usage: check_configs.py FOLDER
"""

import os
import sys

from oumi.core.configs import EvaluationConfig, InferenceConfig, JobConfig, TrainingConfig

PARSERS = {"train": TrainingConfig, "evaluate": EvaluationConfig, "infer": InferenceConfig, "launch": JobConfig}

for name, parser in PARSERS.items():
    file = os.path.join(sys.argv[1], name + ".yaml")
    try:
        parser.from_yaml(file).finalize_and_validate()
    except Exception as error:
        sys.exit(f"{file}: {error}")
