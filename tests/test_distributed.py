import signal
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Trainer

import granprune
from benchmarks import kill
from granprune.criteria import Criterion
from granprune.data import Digits
from granprune.distributed import broadcast, check_devices, check_equal, fingerprint, lost_connection
from granprune.errors import UserError

MASKS = {"a": torch.tensor([True, False, True]), "b": torch.tensor([[True], [False]])}
TWO_HUNDRED_STEPS = (
    f"--config={kill.CONFIG}",
    "--pruning.schedule.init_args.rounds=1",
    "--pruning.schedule.init_args.steps=100",
    "--model.optimizer.init_args.lr=0.2",
    "--trainer.val_check_interval=1000",
    "--checkpoint.every_steps=1000",
)
SAMPLED = "--pruning.criterion.num_samples=100"
CRITERIA = {
    "Random": [],
    "Magnitude": [],
    "Inverted": ["--pruning.criterion.criterion=Magnitude"],
    "SNIP": [SAMPLED],
    "Statistical": ["--model.granularity=Nodes"],
    "GradientMagnitude": [],
    "GraSP": [],
    "MovementSum": [],
    "SynFlow": [],
    "Taylor": [],
}
ELSEWHERE = {"FromRun", "BatchNormScale"}  # takes another run's masks; needs batch normalisation
FIT = ("fit", f"--config={kill.CONFIG}", "--trainer.strategy=ddp", "--trainer.devices=2")


def ranks(number, act):
    """The exit codes of that many processes that call `act(rank)` within a process group."""

    def member(rank, environment):
        torch.set_num_threads(1)
        store = dist.TCPStore(environment["MASTER_ADDR"], int(environment["MASTER_PORT"]), number, rank == 0)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=number)
        act(rank)
        dist.barrier()
        dist.destroy_process_group()

    processes = [kill.call(member, *place) for place in enumerate(kill.rank_environments(number))]
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


# Functions


def test_masks_are_told_apart_by_names_shapes_and_bits():
    masks = MASKS
    assert fingerprint(masks) == fingerprint({name: mask.clone() for name, mask in masks.items()})
    others = [
        {"c": masks["a"], "b": masks["b"]},
        {"a": masks["a"], "b": masks["b"].T},
        {"a": ~masks["a"], "b": masks["b"]},
        {"a": masks["a"]},
    ]
    assert len({fingerprint(masks), *map(fingerprint, others)}) == 5


def test_equal_masks_pass_and_others_are_refused_on_every_rank():
    def act(rank):
        check_equal(MASKS)
        corrupted = {name: mask.clone() for name, mask in MASKS.items()}
        corrupted["b"][1] = rank == 2
        with pytest.raises(UserError, match="the ranks hold different masks"):
            check_equal(corrupted)
        broadcast(corrupted.values())
        check_equal(corrupted)
        assert fingerprint(corrupted) == fingerprint(MASKS)

    assert ranks(3, act) == [0, 0, 0]


def test_the_end_of_a_rank_is_recognised():
    def act(rank):
        if rank == 0:
            sys.exit(3)
        with pytest.raises(RuntimeError) as caught:
            dist.barrier()
        sys.exit(4 if lost_connection(caught.value) else 5)

    assert ranks(2, act) == [3, 4]
    assert not lost_connection(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def trainer(devices):
    return Trainer(
        accelerator="cpu", devices=devices, strategy="ddp", logger=False, enable_checkpointing=False
    )


@pytest.mark.parametrize(
    "devices, batch_size, sync, words",
    [
        (2, 121, False, "data.batch_size 121 is not divisible by the 2 devices"),
        (7, 14, False, "the last batch of an epoch has 12 of 1440 images, which is not divisible by the 7"),
        (4, 128, True, "trainer.sync_batchnorm is true, which only GPUs can do"),
    ],
)
def test_what_devices_cannot_do_is_refused(devices, batch_size, sync, words):
    with pytest.raises(UserError, match=words):
        check_devices(trainer(devices), Digits(batch_size=batch_size), sync)


def test_what_devices_can_do_is_not_refused():
    check_devices(trainer(4), Digits(batch_size=128), sync_batchnorm=False)
    check_devices(trainer(1), Digits(batch_size=121), sync_batchnorm=True)


# Whole runs


def test_it_is_refused_in_one_line_before_other_processes_start(tmp_path):
    log = tmp_path / "log.txt"
    process = kill.start([*FIT, "--trainer.sync_batchnorm=true", f"--run.root={tmp_path}"], log)
    process.join()
    assert process.exitcode == 2
    (line,) = kill.errors_of(log).read_text().splitlines()
    assert line.startswith("granprune: error: trainer.sync_batchnorm is true")


def test_every_criterion_is_covered():
    known = {kind.__name__ for kind in Criterion.__subclasses__() if kind.__module__.startswith("granprune.")}
    assert known == {*CRITERIA, *ELSEWHERE}


@pytest.mark.parametrize("criterion", CRITERIA)
def test_two_ranks_do_what_one_does(criterion, tmp_path):
    options = [*TWO_HUNDRED_STEPS, f"--pruning.criterion={criterion}", *CRITERIA[criterion]]
    found = []
    for name, devices in ("one", []), ("two", kill.TWO_RANKS):
        arguments = ["fit", *options, *devices, f"--run.root={tmp_path / name}"]
        assert not any(kill.run(arguments, tmp_path / "log.txt"))
        found.append(kill.outcome(tmp_path / name))
    one, two = found
    assert one["result"]["steps"] == 200
    assert one["result"]["masks_sha256"] == two["result"]["masks_sha256"]
    assert 0.1 < one["result"]["final_density"] < 0.3
    for name, tensor in one["weights and masks"].items():
        if name != "training_sums":
            torch.testing.assert_close(two["weights and masks"][name], tensor, rtol=0, atol=1e-5)
    assert one["result"]["rounds"][0]["test_accuracy"] > 0.2, "it has learned something to lose"
    assert one["result"]["test_accuracy"] == pytest.approx(two["result"]["test_accuracy"], abs=1.5 / 357)


def test_four_ranks_hold_equal_masks_and_count_every_sample_once(tmp_path):
    def note(rank):
        def prepare():
            import granprune.callback

            def noted(masks):
                check_equal(masks)
                with open(tmp_path / f"rank {rank}", "a") as file:
                    file.write(fingerprint(masks) + "\n")

            granprune.callback.check_equal = noted

        return prepare

    options = ["--trainer.devices=4", "--model.granularity=Nodes", "--pruning.criterion=Statistical"]
    arguments = [*FIT, *options, f"--run.root={tmp_path / 'runs'}"]
    places = enumerate(kill.rank_environments(4))
    processes = [kill.start(arguments, tmp_path / "log.txt", note(rank), place) for rank, place in places]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]

    hashes = [(tmp_path / f"rank {rank}").read_text().split() for rank in range(4)]
    assert hashes[1:] == hashes[:1] * 3
    outcome = kill.outcome(tmp_path / "runs")
    assert len(set(hashes[0])) == 2 and hashes[0][-1] == outcome["result"]["masks_sha256"]

    state = outcome["weights and masks"]
    x, data = images_of_digits()
    for i in range(2):
        weight, bias = (state[f"network.network.hidden.{i}.{kind}"] for kind in ("weight", "bias"))
        mask = next(v for k, v in state.items() if f"hidden.{i}" in k and k.endswith(".mask"))
        x = 1.7159 * torch.tanh(0.6666 * mask * (x @ weight.T + bias))
    logits = x @ state["network.network.head.weight"].T + state["network.network.head.bias"]
    right = (logits.argmax(1) == data["test_labels"]).sum().item()
    assert outcome["result"]["test_accuracy"] == pytest.approx(right / 357, abs=1e-7)


def images_of_digits():
    data = Digits().fetch()
    return (data["test_images"].flatten(1) / 255 - 0.5) / 0.5, data


def corrupt(masks):
    next(iter(masks.values())).logical_not_()


def test_a_mask_corrupted_on_one_rank_ends_the_run(tmp_path):
    def prepare():
        import granprune.callback

        kill.call_at(granprune.callback, "check_equal", 0, corrupt)

    log = tmp_path / "log.txt"
    assert kill.run([*FIT, f"--run.root={tmp_path / 'runs'}"], log, prepare, victim=1) == [2, 2]
    lines = kill.errors_of(log).read_text().splitlines()
    assert lines == [line for line in lines if "the ranks hold different masks after pruning" in line]


@pytest.mark.parametrize("victim", [0, 1])
def test_a_signal_to_one_rank_stops_all(victim, tmp_path):
    def prepare():
        kill.call_at(*kill.places()["batch start"], 25, lambda *unused: signal.raise_signal(signal.SIGTERM))

    log = tmp_path / "log.txt"
    assert kill.run([*FIT, f"--run.root={tmp_path / 'runs'}"], log, prepare, victim) == [75, 0]
    (line,) = kill.errors_of(log).read_text().splitlines()
    assert line.startswith("granprune: stopped by SIGTERM after step 40, saved in ")


# The launchers of Lightning, whose processes import everything anew


def command(strategy, root):
    program = [sys.executable, f"{granprune.__path__[0]}/__main__.py"]
    return [*program, *FIT, f"--trainer.strategy={strategy}", f"--run.root={root}"]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn"])
def test_launched_ranks_end_where_forked_ones_do(strategy, tmp_path):
    arguments = [*FIT, f"--run.root={tmp_path / 'forked'}"]
    assert kill.run(arguments, tmp_path / "log.txt") == [0, 0]
    stale = {"GRANPRUNE_RUN_DIRECTORY": f"{kill.os.getpid()} {tmp_path / 'another'}"}  # of a run made here
    environment = {**kill.os.environ, **stale, "OMP_NUM_THREADS": "1"}
    subprocess.run(command(strategy, tmp_path / "launched"), env=environment, check=True)
    assert kill.differences(kill.outcome(tmp_path / "forked"), kill.outcome(tmp_path / "launched")) == []


@pytest.mark.slow
def test_ranks_compile(tmp_path):
    arguments = [*FIT, "--model.compile=true", f"--run.root={tmp_path / 'runs'}"]
    assert kill.run(arguments, tmp_path / "log.txt") == [0, 0]
    assert kill.outcome(tmp_path / "runs")["result"]["test_accuracy"] > 0.3
