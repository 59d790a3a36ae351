"""Credentials never leave the doctor; what merely looks like one stays readable."""

import time

import pytest

from doctor.redaction import redact

HIDDEN = {
    "https://me:hunter2@pypi.org/simple": "hunter2",
    "pip install --index-url https://u:p@ss@host/simple": "p@ss",
    "https://u:pa/ss@host/x": "pa/ss",
    "https://tok3n@github.com/x": "tok3n",
    "?access_token=zzz9&x=1": "zzz9",
    "https://s3/x?X-Amz-Credential=AB12&X-Amz-Signature=cd34": "cd34",
    "Authorization: Bearer abc.def-123": "abc.def-123",
    "{'Authorization': 'Basic dXNlcjpwYXNz'}": "dXNlcjpwYXNz",
    "curl -H 'X-API-Key: deadbeef'": "deadbeef",
    "Cookie: session=abc; id=2": "session=abc",
    "login hf_AbCdEf1234567890abcd now": "hf_AbCdEf1234567890abcd",
    "sk-proj-abc123DEF456": "abc123DEF456",
    "ghp_0123456789abcdefABCDEF0123456789abcd": "ghp_",
    "github_pat_11AAAAA_bbbbbbbbbbbbbbbbb": "11AAAAA",
    "key AKIAIOSFODNN7EXAMPLE": "AKIAIOSFODNN7EXAMPLE",
    "xoxb-123-456-abcdef": "123-456",
    "tml-abcdefghij0123": "abcdefghij0123",
    "wandb login 0123456789abcdef0123456789abcdef01234567": "0123456789abcdef",
    "HF_TOKEN=abc": "abc",
    'export WANDB_API_KEY="abc def"': "abc def",
    "OPENAI_API_KEY: zzz9": "zzz9",
    "TINKER_API_KEY=tml9": "tml9",
    "PGPASSWORD=x9y": "x9y",
    "MY_KEY_FILE=ab12cd": "ab12cd",
    "GOOGLE_APPLICATION_CREDENTIALS_JSON=ab12": "ab12",
    "KEY=ab12": "ab12",
    "{'api_key': 'zz9'}": "zz9",
    "password = hunter2": "hunter2",
    "db_passwd: hunter2": "hunter2",
    "secretKey=zz9yy": "zz9yy",
    "login(token='abc9')": "abc9",
    "huggingface-cli login --token abcdef9": "abcdef9",
    "tool --api-key=abcdef9": "abcdef9",
    "aws_secret_access_key = wJalrXUtn": "wJalrXUtn",
    "//registry/:_authToken=abc9": "abc9",
    "machine h.example login me9 password pw9": "pw9",
    "  password pw9x": "pw9x",
    "eyJhbGciOiJI.eyJzdWIiOiIx.abcdefg": "eyJzdWIiOiIx",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEabc123abc123abc123\n-----END RSA PRIVATE KEY-----\nafter": "MIIEabc123",
    "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAA\nTraceback: yes": "b3BlbnNzaC1",
}
KEPT = (
    "tokenizers: 0.19.1",
    "tokenizers==0.15.2",
    "TOKENIZERS_PARALLELISM=false",
    "KeyError: 'foo'",
    "max_tokens=100",
    "eos_token: </s>",
    "pad_token_id=0",
    "pad_token=tokenizer.eos_token",
    "key_states = self.k_proj(x)",
    "hf_transfer 0.1.8, hf_hub_download(",
    "pypi-simple==1.8.0",
    "tokenizer=tok",
    "use_auth_token=True",
    "commit 0123456789abcdef0123456789abcdef01234567",
    'File "/home/me/x.py", line 3, in f',
    "token: str",
    "raise KeyError(key)",
    "ssh://git@github.com/x",
    "http://127.0.0.1:8000/v1",
    "PWD=/root/x",
    "TypeError: Trainer.__init__() got an unexpected keyword argument 'tokenizer'",
    "sk-learn-contrib",
)


@pytest.mark.parametrize("text", HIDDEN, ids=lambda text: text[:30])
def test_credentials_are_hidden(text):
    shown = redact(text)
    assert HIDDEN[text] not in shown
    assert "***" in shown
    assert redact(shown) == shown
    assert redact(f"2024-01-01 INFO {text}\nnext line").endswith("\nnext line")


@pytest.mark.parametrize("text", KEPT)
def test_what_is_no_credential_stays(text):
    assert redact(text) == text


def test_after_a_private_key_the_text_goes_on():
    assert redact("-----BEGIN PRIVATE KEY-----\nAAAAAAAAAAAAAAAAAAAAAA==\n-----END PRIVATE KEY-----\nafter").endswith(
        "\nafter"
    )
    assert redact("-----BEGIN PRIVATE KEY-----\nAAAAAAAAAAAAAAAAAAAAAA==\nValueError: x").endswith("\nValueError: x")


PIECES = (
    "a",
    "a-",
    "://",
    "token_",
    "token=",
    "key'",
    "?token",
    "eyJaaaaaaaaa.",
    "sk-",
    "--a",
    "machine ",
    "wandb ",
    "<",
    "password ",
    "-----BEGIN PRIVATE KEY-----",
    "cookie:",
    "authorization:bearer ",
    "x",
)


def test_time_grows_with_the_length_only():
    """Lines of 80 thousand characters; an expression that goes back and forth would take hours."""
    begin = time.process_time()
    for piece in PIECES:
        redact(piece * (80_000 // len(piece)))
    assert time.process_time() - begin < 60
