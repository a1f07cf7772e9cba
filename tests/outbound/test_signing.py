"""Signatures are those of the Standard Webhooks library and of its own example."""

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from eventjobs.auth.master_key import MasterKey
from eventjobs.clock import SystemClock
from eventjobs.outbound.signing import signature


def test_a_signature_is_one_that_the_library_of_the_standard_accepts() -> None:
    secret = MasterKey(bytes(32)).signing_secret("dispatch", "analyse")
    body = '{"name":"Zoë"}'.encode()
    now_us = SystemClock().now_us()
    headers = signature(secret, "msg_1", body, now_us)
    assert headers["webhook-id"] == "msg_1"
    assert headers["webhook-timestamp"] == str(now_us // 1_000_000)
    assert Webhook(secret).verify(body, headers) == {"name": "Zoë"}
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body + b" ", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body, headers | {"webhook-id": "msg_2"})


def test_a_signature_is_the_one_of_the_standards_own_example() -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    at_us = 1_614_265_330_000_000
    headers = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', at_us)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
