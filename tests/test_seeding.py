import torch

from granprune.seeding import seeded


def test_equal_parts_give_equal_numbers():
    assert torch.equal(
        torch.rand(5, generator=seeded("order", 3, 7)), torch.rand(5, generator=seeded("order", 3, 7))
    )


def test_every_part_and_its_place_matters():
    parts = [("order", s, e) for s in range(10) for e in range(10)] + [
        ("draws", 0, 0),
        ("order",),
        (0, 0),
        (0,),
    ]
    first = {torch.randint(2**62, (), generator=seeded(*p)).item() for p in parts}
    assert len(first) == len(parts)


def test_digits_of_neighbouring_parts_do_not_run_together():
    assert seeded(1, 12).initial_seed() != seeded(11, 2).initial_seed()


def test_neighbouring_seeds_are_unrelated():
    numbers = torch.stack([torch.rand(500, generator=seeded(seed)) for seed in range(20)])
    correlation = torch.corrcoef(numbers) - torch.eye(20)
    assert correlation.abs().max() < 5 / 500**0.5


def test_numbers_are_the_same_on_every_platform():
    generator = seeded("order", 1, 2)
    assert generator.initial_seed() == 8544398333966354448
    assert torch.randperm(8, generator=generator).tolist() == [6, 4, 3, 0, 1, 7, 2, 5]


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    torch.rand(3, generator=seeded(0))
    assert torch.equal(torch.get_rng_state(), before)
