"""Names of distributions as texts write them."""

import re

from packaging.utils import canonicalize_name

# Distributions that are known by name in a sentence; any other must stand in a table or with an operator.
_KNOWN_TEXT = """
    absl-py accelerate adapter-transformers adapters aiohttp albumentations altair anthropic anyio apex
    apache-beam art-trainer auto-gptq autoawq av awq axolotl bert-score bespokelabs-curator bitsandbytes
    bitsandbytes-windows black blobfile boto3 causal-conv1d compressed-tensors coqui-tts ctranslate2 cuda-python
    cudf cupy cut-cross-entropy cython dask datasets decord deepspeed deepspeed-kernels diffusers dill
    distilabel docker einops evaluate exllamav2 fairscale fairseq faiss faiss-cpu faiss-gpu fastapi fastchat
    fastembed faster-whisper filelock fire flash-attn flash-attn-3 flash-attn-4 flash-linear-attention
    flashinfer flashinfer-python flask flax fschat fsspec ftfy funasr galore-torch gdown gensim gguf gptqmodel
    gradio gradio-client grpcio guidance guided-diffusion gymnasium h5py hf-transfer hf-xet hjson hqq httpcore
    httpx huggingface-hub hydra-core imageio instructor invisible-watermark ipykernel ipython ipywidgets jax
    jaxlib jaxtyping jinja2 joblib jsonschema jupyter keras kernels kornia langchain langchain-community
    langchain-core langchain-openai langgraph librosa lightning lightning-utilities liger-kernel litellm
    llama-cpp-python llama-index llamafactory llmcompressor lm-eval lm-format-enforcer lmdeploy loguru
    lion-pytorch lpips lxml mamba-ssm markupsafe marimo marlin matplotlib megatron-core mistral-common ml-dtypes
    mlflow mlx mlx-lm modelscope mpi4py msgpack msgspec multiprocess mypy natten nest-asyncio networkx ninja
    nltk nncf numba numexpr numpy nvidia-ml-py nvidia-nccl-cu12 nvidia-cudnn-cu12 nvidia-cublas-cu12 omegaconf
    onnx onnxruntime onnxruntime-gpu open-clip-torch openai opencv-python opencv-python-headless openpipe-art
    openvino optax optimum optree optuna orjson outlines outlines-core packaging paddlepaddle pandas peft
    pettingzoo pillow pip polars prodigy prometheus-client protobuf psutil py-cpuinfo pyarrow pybind11
    pycocotools pycuda pydantic pydantic-core pydub pynvml pyopenssl pytest python-multipart pytorch-lightning
    pytorch-triton pyyaml quanto optimum-quanto ray regex requests rich rouge-score ruff safetensors sacrebleu
    sageattention scikit-build-core scikit-image scikit-learn scipy seaborn segment-anything
    sentence-transformers sentencepiece sentry-sdk seqeval setfit setuptools sgl-kernel sglang sglang-kernel
    shap shtab simpletransformers soundfile spaces spacy stable-baselines3 starlette streamlit supervision sympy
    tensorboard tensorboardx tensorflow tensorflow-gpu tensorrt tensorrt-llm text-generation-inference tf-keras
    thinc tiktoken timm tinker tokenizers tomli toolz torch torch-geometric torch-scatter torch-sparse
    torch-tensorrt torch-xla torchao torchaudio torchdata torchmetrics torchtext torchtitan torchtune
    torchvision tornado tqdm transformer-engine transformer-lens transformers transformers-stream-generator
    triton triton-windows trl turbojpeg typer typing-extensions tyro ujson ultralytics umap-learn unsloth
    unsloth-zoo urllib3 uv uvicorn uvloop verl vllm vllm-flash-attn wandb webdataset weights-biases wheel
    whisper openai-whisper xformers xgboost xgrammar xxhash yapf yarl zstandard
"""
KNOWN = frozenset(_KNOWN_TEXT.split())
# What texts call a distribution otherwise.
ALIASES = {
    "pytorch": "torch",
    "torch-cuda": "torch",
    "hf-hub": "huggingface-hub",
    "hugging-face-hub": "huggingface-hub",
    "huggingfacehub": "huggingface-hub",
    "llama-factory": "llamafactory",
    "flash-attention": "flash-attn",
    "flash-attention-2": "flash-attn",
    "flashattention": "flash-attn",
    "fa2": "flash-attn",
    "sklearn": "scikit-learn",
    "cv2": "opencv-python",
    "pil": "pillow",
    "yaml": "pyyaml",
    "tf": "tensorflow",
    "bnb": "bitsandbytes",
    "llama-cpp": "llama-cpp-python",
    "liger": "liger-kernel",
    "sentence-transformer": "sentence-transformers",
    "sbert": "sentence-transformers",
    "hf-transformers": "transformers",
    "torchrl-lib": "torchrl",
    "unslothzoo": "unsloth-zoo",
    "art": "openpipe-art",
    "pytorch-lightning-lib": "pytorch-lightning",
    "apache-arrow": "pyarrow",
    "np": "numpy",
    "pyg": "torch-geometric",
    "hugging-face-transformers": "transformers",
    "huggingface-transformers": "transformers",
    "torch-version": "torch",
    "deep-speed": "deepspeed",
    "sgl": "sglang",
    "ray-core": "ray",
    "awq-kernels": "autoawq-kernels",
}
# Keys of reports that are no distributions though a version follows.
_NEVER_TEXT = """
    python cuda cudnn os gcc g++ clang cmake glibc libc kernel driver ubuntu debian linux windows macos platform
    nccl nvcc rocm hip node npm java rust go docker version step epoch loss lr rank line port pid exit code time
    gpu cpu ram memory model seed size batch the a an in of for on at by to with from is was are be and or not
    no it this that file func function name id date host user error warning info debug note hint file-name conda
    miniconda anaconda pyenv nvidia-smi nvidia-driver base-image env cuda-toolkit cudatoolkit cuda-version
    revision commit score accuracy run-time runtime total elapsed speed throughput requires found using after
    before since until tensor shape dtype device max min mean std
"""
NEVER = frozenset(_NEVER_TEXT.split())
_WORD = re.compile(r"[A-Za-z0-9](?:[\w.\-]*[A-Za-z0-9])?\Z")


def distribution(text: str) -> str | None:
    """Return the normalised name of a distribution that a word or a few words name, whether known or not.

    Args:
        text: such as "`transformers` version", "PyTorch version (GPU?)", "huggingface_hub[cli]".

    Returns:
        The name; None where it can't be one.
    """
    text = re.sub(r"\([^()]*\)|\[[^\[\]]*\]", "", text).strip(" \t`*'\"_|>#-+•")
    text = re.sub(
        r"^(?:(?:the |my |our )?versions? of |installed |package |current |library )|"
        r"(?:'s)? (?:library |package )?(?:installed )?(?:versions?|ver\.?|package|"
        r"library)$",
        "",
        text.strip(),
        flags=re.IGNORECASE,
    )
    text = text.removesuffix("\u7248\u672c").strip(" \t`*'\"")  # "version" in Chinese
    if not text or len(text) > 60 or text.count(" ") > 2:
        return None
    plain = canonicalize_name(re.sub(r"\s+", "-", text))
    name = ALIASES.get(plain, plain)
    if name not in KNOWN and name.startswith(("cuda-", "nvidia-driver", "gpu-", "cudnn", "accelerate-config")):
        return None
    return name if _WORD.match(name) and name not in NEVER and not name.isdigit() else None
