"""A crew is as many trainers as there shall be, all of the same code, until it is closed."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from ray.exceptions import ActorUnavailableError

from dtrain.errors import DriftError
from tests.support.crews import LocalCrew, LocalTrainer
from tests.support.ranks import spec


async def _crew(*, seats: int | tuple[int, ...], target: int) -> LocalCrew:
    crew = LocalCrew(spec(numerics="fast"), seats=seats, target=target)
    crew.fill()
    await crew.settle()
    return crew


def test_lost_trainer_is_told_once_and_replaced_until_the_crew_is_closed() -> None:
    async def main() -> None:
        crew = await _crew(seats=2, target=2)
        for _ in range(2):
            crew.lose(crew.ready[0].serial if not crew.lost else 1, "it is gone", is_death=True)
        assert [member.introduction.pid for member in crew.lost] == [1]
        crew.fill()
        await crew.settle()
        assert len(crew.trainers) == 3
        crew.close()
        crew.lose(crew.ready[0].serial, "the job is over", is_death=True)
        crew.fill()
        await crew.scale(5)
        await crew.settle()
        assert (len(crew.lost), len(crew.trainers)) == (1, 3)

    asyncio.run(main())


def test_trainer_that_ray_does_not_reach_for_a_while_is_not_taken_for_dead() -> None:
    class Unreachable(LocalTrainer):
        num_asked = 0

        def live(self) -> asyncio.Future[None]:
            self.num_asked += 1
            call = super().live()
            if self.num_asked == 1:
                call.set_exception(ActorUnavailableError("its node does not answer", actor_id=None))
            return call

    async def main() -> None:
        crew = LocalCrew(spec(numerics="fast"), seats=1, target=1, kind=Unreachable)
        crew.fill()
        await crew.settle()
        (trainer,) = crew.trainers
        assert isinstance(trainer, Unreachable)
        while trainer.num_asked < 2:
            await asyncio.sleep(0.01)
        assert crew.lost == []

    asyncio.run(asyncio.wait_for(main(), 60.0))


@pytest.mark.parametrize(("seats", "target", "number"), [((2, 2), 3, 3), ((2, 2), 1, 1), ((1,), 3, 1)])
def test_crew_is_as_many_as_are_wanted_and_have_seats_in_any_of_the_jobs_groups(
    seats: tuple[int, ...], target: int, number: int
) -> None:
    async def main() -> None:
        crew = await _crew(seats=seats, target=target)
        assert (crew.size, crew.target, len(crew.ready)) == (number, number, number)

    asyncio.run(main())


def test_trainers_that_have_other_code_than_the_attempt_are_none_of_the_crew() -> None:
    class Changing(LocalTrainer):
        """The first two have the code as it was."""

        def __init__(self, number: int) -> None:
            super().__init__(number)
            self.introduction = replace(self.introduction, code_sha256="before" if number < 3 else "after")

    async def main() -> None:
        crew = LocalCrew(spec(numerics="fast"), seats=2, target=2, kind=Changing)
        crew.fill()
        await crew.settle()
        crew.require("before")
        crew.lose(crew.ready[0].serial, "it is gone", is_death=True)
        crew.fill()
        await crew.settle()
        assert [member.introduction.pid for member in crew.ready] == [2]
        assert [type(error) for error in crew.failures] == [DriftError]
        assert crew.trainers[2].has_ended
        crew.require("after")
        await crew.settle()
        assert [member.introduction.pid for member in crew.ready] == [4, 5]

    asyncio.run(main())
