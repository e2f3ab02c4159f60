"""A replica of a model: fetches the model, sees what kind it is, and serves it on a loopback port.

Exit codes: 78 (EX_CONFIG) where trying again does not help, 75 (EX_TEMPFAIL) where it may. The last line tells why.
"""

import argparse
import os
import pathlib
import sys

import fetch

PYFUNC, CAUSAL_LM = "pyfunc", "causal_lm"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="the model's name in URLs")
    parser.add_argument("--uri", required=True, help="models:/, runs:/, s3:// or a folder")
    parser.add_argument("--folder", required=True, type=pathlib.Path, help="where a fetched model is kept")
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--runtime", default="auto", choices=["auto", PYFUNC, CAUSAL_LM])
    parser.add_argument("--threads", default=1, type=int, help="threads to compute with")
    parser.add_argument("--memory-mib", default=0, type=int, help="memory to allocate at most; 0 for no limit")
    parser.add_argument("--gpu-memory", default=0.0, type=float, help="the share of a GPU's memory; 0 without GPU")
    parser.add_argument("--causal-lm-python", type=pathlib.Path, help="the Python with PyTorch and transformers")
    args = parser.parse_args()
    limit_memory(args.memory_mib)
    folder = fetch.fetch(args.uri, args.folder)
    runtime = kind(folder) if args.runtime == "auto" else args.runtime
    if runtime == CAUSAL_LM:
        become_causal_lm(args, folder)
    import pyfunc_server

    pyfunc_server.serve(args.name, folder, args.port, args.threads)


def kind(folder):
    """What runs the model in `folder`, by its files."""
    if (folder / "MLmodel").is_file():
        return PYFUNC
    if (folder / "config.json").is_file():
        return CAUSAL_LM
    files = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
    raise fetch.Permanent(f"the model has neither MLmodel (pyfunc) nor config.json (language model); it has: {files}")


def become_causal_lm(args, folder):
    """Goes on in the environment of language models, which cannot be shared with KServe's."""
    python = args.causal_lm_python
    if python is None or not python.is_file():
        raise fetch.Permanent(f"there is no {python}: bring up the environment of language models, oumi-environment")
    server = pathlib.Path(__file__).with_name("causal_lm_server.py")
    words = [python, "-I", server, args.name, folder, args.port, args.threads, args.gpu_memory]
    sys.stdout.flush()
    os.execv(python, [str(word) for word in words])


def limit_memory(mib):
    """Lets an allocation beyond the limit fail in this replica, before others of the machine suffer."""
    if mib:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (mib << 20, mib << 20))


if __name__ == "__main__":
    try:
        main()
    except fetch.Permanent as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(os.EX_CONFIG)
    except fetch.Transient as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(os.EX_TEMPFAIL)
    except MemoryError:
        sys.stderr.write("error: the model needs more memory than resources.memory_mib gives it\n")
        sys.exit(os.EX_CONFIG)
