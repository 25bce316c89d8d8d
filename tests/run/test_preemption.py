import os
import signal
from types import SimpleNamespace

import pytest
from lightning.pytorch import Trainer

from granprune.run.preemption import AGREE_EVERY, EXIT_INTERRUPTED, Interrupted, Preemption


@pytest.fixture
def preemption():
    """Listening, in a process that ignores the signals otherwise."""
    before = {signum: signal.signal(signum, signal.SIG_IGN) for signum in Preemption.signals}
    preemption = Preemption()
    preemption.listen()
    yield preemption
    preemption.stop_listening()
    assert all(signal.getsignal(signum) == signal.SIG_IGN for signum in Preemption.signals)
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_is_remembered_until_asked_for(preemption, signum):
    trainer = SimpleNamespace(world_size=1)
    assert preemption.agreed(trainer, step=1) == 0
    os.kill(os.getpid(), signum)
    assert preemption.agreed(trainer, step=1) == signum


def test_a_second_interrupt_does_not_wait(preemption):
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_ranks_ask_each_other_now_and_then(preemption):
    asked = []

    def reduce(received, reduce_op):
        asked.append((int(received), reduce_op))
        return received.clone().fill_(signal.SIGTERM)  # another rank's

    trainer = SimpleNamespace(world_size=2, strategy=SimpleNamespace(reduce=reduce, root_device="cpu"))
    answers = [preemption.agreed(trainer, step) for step in range(1, 2 * AGREE_EVERY + 1)]
    assert asked == [(0, "max")] * 2
    assert [step for step, answer in enumerate(answers, 1) if answer == signal.SIGTERM] == [20, 40]


def test_without_slurm_nothing_is_requeued(monkeypatch):
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    handled = []
    monkeypatch.setattr(
        trainer._signal_connector, "_slurm_sigusr_handler_fn", lambda *given: handled.append(given)
    )
    Preemption().requeue(trainer, signal.SIGUSR1)
    assert handled == []


def test_the_message_says_how_to_go_on(tmp_path):
    assert str(Interrupted(signal.SIGTERM, tmp_path, 30)) == (
        f"stopped by SIGTERM after step 30, saved in {tmp_path}; run the same command again to go on"
    )
    assert EXIT_INTERRUPTED == os.EX_TEMPFAIL
