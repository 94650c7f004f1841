"""The redis-server of the tests does what they rely on."""

import redis

from tests.redis_server import CERTIFICATE, RedisServer


def test_it_is_there_and_remembers_what_was_saved(redis_server):
    with redis_server.client() as client:
        client.set("seen", "saved")
        redis_server.save()
        client.set("seen", "not saved")
    redis_server.kill()
    redis_server.start()
    with redis_server.client() as client:
        assert client.get("seen") == "saved"
    redis_server.kill()
    redis_server.start(empty=True)
    with redis_server.client() as client:
        assert client.get("seen") is None


def test_its_data_can_be_lost_in_use(redis_server):
    with redis_server.client() as client:
        client.set("seen", "yes")
        redis_server.flush()
        assert client.get("seen") is None


def test_it_can_stand_still(redis_server):
    with redis.Redis(port=redis_server.port, socket_timeout=0.05, retry=None) as client:
        assert client.ping()
        redis_server.stop()
        try:
            client.ping()
        except redis.TimeoutError:
            pass
        else:
            msg = "it answered"
            raise AssertionError(msg)
        finally:
            redis_server.go_on()
    with redis_server.client() as client:
        assert client.ping()


def test_it_asks_for_a_password_and_speaks_tls(redis_server):
    with RedisServer(redis_server.folder / "other", password="hunter2-hunter2", tls=True) as server:
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()
        assert str(CERTIFICATE) in server.url
