"""Trains a classifier of irises, keeps it in MLflow, and tells what it answers in process: the proof of model serving.

Arguments: the name of the experiment, and a number that makes models differ. Prints one line of JSON.
"""

import json
import sys
import tempfile

import mlflow
import mlflow.models
import mlflow.sklearn
import sklearn
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

experiment, variant = sys.argv[1], int(sys.argv[2])
features, classes = load_iris(return_X_y=True, as_frame=True)
model = LogisticRegression(C=1.0 / variant, max_iter=1000).fit(features, classes)

run = mlflow.MlflowClient().create_run(mlflow.set_experiment(experiment).experiment_id)
with tempfile.TemporaryDirectory() as folder:
    mlflow.sklearn.save_model(
        model,
        f"{folder}/model",
        # Told, not guessed: guessing loads the model in another process.
        pip_requirements=[f"scikit-learn=={sklearn.__version__}"],
        signature=mlflow.models.infer_signature(features, model.predict_proba(features)),
        pyfunc_predict_fn="predict_proba",
    )
    mlflow.MlflowClient().log_artifact(run.info.run_id, f"{folder}/model")
    rows = features[::30]
    expected = mlflow.pyfunc.load_model(f"{folder}/model").predict(rows)
mlflow.MlflowClient().set_terminated(run.info.run_id)
json.dump(
    {
        "run": run.info.run_id,
        "experiment": run.info.experiment_id,
        "uri": f"runs:/{run.info.run_id}/model",
        "inputs": rows.to_numpy().tolist(),
        "outputs": expected.tolist(),
    },
    sys.stdout,
)
