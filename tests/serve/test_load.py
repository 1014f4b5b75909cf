from pathlib import Path

import pytest

from tests.serve.load import measure


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_many_clients_lose_no_job_and_are_refused_politely(tmp_path: Path):
    found = measure(tmp_path, seconds=15, clients=50)
    assert found["faults"] == {}
    assert set(found["answers"]) <= {200, 201, 202, 429}
    assert found["answers"][429] > 0, "more is asked for than is allowed"
    assert found["jobs_by_state"] == {"done": found["jobs_accepted"]}
    assert found["masks_right"] == found["jobs_accepted"] > 0
    assert found["server_mb_most"] < 400
