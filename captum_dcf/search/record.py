r"""What is known of every example of a call, filled in row by row as the search goes on."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_dcf.search.goal import Verdict
from captum_dcf.search.judging import agreement
from captum_dcf.search.problem import Evaluation, Problem
from captum_dcf.search.result import Counterfactual, Status

__all__ = ["RUNNING", "Record"]

# In place of a Status, while there is none.
RUNNING = -1


class Record:
    r"""State of all N examples of a call.

    Of two images of an example the better is kept: one that reaches the goal before one that does not, among those that
    reach it the one at the smaller distance, among the others the one of higher score.

    Args:
        problem: What is searched.
        search_unreconstructed: Whether examples whose reconstruction changes the answer are searched on.
        keep_path: Whether to keep the images on the way.
    """

    # Columns whose width or type only the first judgement tells.
    start_points: Tensor
    points: Tensor
    before: Tensor  # the last point that did not reach the goal and was stepped from
    distances: Tensor
    start_scores: Tensor
    reconstruction_scores: Tensor
    end_scores: Tensor

    def __init__(self, problem: Problem, search_unreconstructed: bool = False, keep_path: bool = False) -> None:
        x = problem.inputs
        self.problem = problem
        self.search_unreconstructed = search_unreconstructed
        self.images, self.reconstructions = x.clone(), x.clone()
        self.status = torch.full((len(x),), RUNNING, dtype=torch.int64, device=x.device)
        self.steps = torch.zeros_like(self.status)
        self.reached = torch.zeros_like(self.status, dtype=torch.bool)
        self.overshoot = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        self.unreconstructed = torch.zeros_like(self.reached)
        self.was_finite = torch.zeros_like(self.reached)  # whether any candidate was, after the start
        self._wide = (-1, *[1] * (x.ndim - 1))  # the shape in which a mask (n,) chooses among images
        self._is_allocated = False
        self._frames: list[tuple[Tensor, Tensor]] | None = [] if keep_path else None

    def admit(self, at: Evaluation, output: Tensor, verdict: Verdict) -> Tensor:
        r"""Takes up examples by the first judgement of them.

        Args:
            at: The evaluation of their reconstructions.
            output: The model's output on the inputs themselves.
            verdict: The goal's verdict of it.

        Returns:
            Which of them are to be searched, bool (n,).
        """
        # An output that is not finite reaches nothing, as for candidates.
        rows, already = at.rows, verdict.reached & verdict.score.isfinite()
        if not self._is_allocated:
            self._allocate(at, verdict.score)
        unreconstructed = ~agreement(self.problem.goal, output, at.output, rows)
        searches = at.finite & ~already & (~unreconstructed | self.search_unreconstructed)
        status = torch.where(unreconstructed, int(Status.NOT_RECONSTRUCTED), int(Status.FOUND))
        status = torch.where(at.finite, status, int(Status.NOT_FINITE))
        status = torch.where(already, int(Status.ALREADY_THERE), status)
        searches &= ~at.reached
        self.status[rows] = torch.where(searches, RUNNING, status)
        self.unreconstructed[rows] = unreconstructed
        takes = at.finite & ~already
        self.reached[rows] = already | (takes & at.reached)
        finite, takes_images = at.finite.view(self._wide), takes.view(self._wide)
        self.reconstructions[rows] = torch.where(finite, at.images, self.problem.inputs[rows])
        self.images[rows] = torch.where(takes_images, at.images, self.images[rows])
        self.start_points[rows] = self.points[rows] = self.before[rows] = at.points
        self.start_scores[rows] = verdict.score
        self.reconstruction_scores[rows] = at.score.to(verdict.score)
        self.end_scores[rows] = torch.where(takes, at.score, verdict.score)
        self.overshoot[rows] = torch.where(takes, at.overshoot, 0)
        return searches

    def begin_paths(self, at: Evaluation) -> None:
        r"""Makes the reconstruction the first frame of those that search, or that found it to be enough."""
        if self._frames is not None:
            status = self.status[at.rows]
            begins = (status == RUNNING) | (status == Status.FOUND)
            self.keep_frames(at.rows[begins], at.images[begins])

    def update(self, at: Evaluation, distance: Tensor) -> None:
        r"""Counts a step of each example and keeps its candidate where that is better, see the class."""
        rows = at.rows
        known = self.reached[rows]
        nearer = at.reached & (~known | (distance < self.distances[rows]))
        better = nearer | (~known & at.finite & ~at.reached & (at.score > self.end_scores[rows]))
        self.steps[rows] += 1
        self.images[rows] = torch.where(better.view(self._wide), at.images, self.images[rows])
        self.points[rows] = torch.where(better[:, None], at.points, self.points[rows])
        self.end_scores[rows] = torch.where(better, at.score, self.end_scores[rows])
        self.overshoot[rows] = torch.where(better, at.overshoot, self.overshoot[rows])
        self.distances[rows] = torch.where(nearer, distance.to(self.distances), self.distances[rows])
        self.reached[rows] = known | at.reached
        self.was_finite[rows] |= at.finite
        missed = at.finite & ~at.reached
        if at.gradient is not None:
            # Where there is no step to take, a step is taken back: the way to what is found does not begin there.
            missed &= at.gradient.isfinite().all(1) & (at.gradient != 0).any(1)
        self.before[rows] = torch.where(missed[:, None], at.points, self.before[rows])
        if self._frames is not None:
            self.keep_frames(rows[at.finite], at.images[at.finite])

    def end(self, rows: Tensor, status: Tensor | Status) -> None:
        r"""Ends searches. One that has found something is FOUND, whatever ended it."""
        status = torch.as_tensor(status, device=rows.device, dtype=torch.int64)
        status = torch.where(self.reached[rows], int(Status.FOUND), status)
        self.status[rows] = torch.where(self.unreconstructed[rows], int(Status.NOT_RECONSTRUCTED), status)

    def end_at_limit(self, rows: Tensor) -> None:
        r"""Ends searches that have reached the goal or used up their steps."""
        status = torch.where(self.was_finite[rows], int(Status.STEP_LIMIT), int(Status.NOT_FINITE))
        self.end(rows, status)

    def replace(self, at: Evaluation, where: Tensor) -> None:
        r"""Takes over other images that reach the goal, in place of those found."""
        rows = at.rows
        self.images[rows] = torch.where(where.view(self._wide), at.images, self.images[rows])
        self.points[rows] = torch.where(where[:, None], at.points, self.points[rows])
        self.end_scores[rows] = torch.where(where, at.score, self.end_scores[rows])
        self.overshoot[rows] = torch.where(where, at.overshoot, self.overshoot[rows])

    def keep_frames(self, rows: Tensor, images: Tensor) -> None:
        r"""Adds images to the paths of examples, if paths are kept."""
        if self._frames is not None:
            self._frames.append((rows, images))

    def freeze(self, has_latents: bool, plausibility: tuple[Tensor, Tensor] | None = None) -> Counterfactual:
        r"""The result; the record is not to be used afterwards.

        Args:
            has_latents: Whether the points are latents that the result is to name.
            plausibility: That of the inputs and that of the counterfactuals, (N,) each, where there is one.
        """
        frames, frame_rows = self._joined_frames()
        support = getattr(self.problem.coordinates, "support", None)
        is_density = plausibility is not None and self.problem.measured == "log_prob"
        start, end = plausibility or (None, None)
        return Counterfactual(
            inputs=self.problem.inputs,
            counterfactuals=self.images,
            reconstructions=self.reconstructions,
            status=self.status,
            reached=self.reached,
            steps=self.steps,
            start_scores=self.start_scores,
            reconstruction_scores=self.reconstruction_scores,
            end_scores=self.end_scores,
            overshoot=self.overshoot,
            start_log_probs=start if is_density else None,
            end_log_probs=end if is_density else None,
            start_percentiles=None if start is None or support is None else support.percentile(start),
            end_percentiles=None if end is None or support is None else support.percentile(end),
            start_latents=self.start_points if has_latents else None,
            end_latents=self.points if has_latents else None,
            frames=frames,
            frame_rows=frame_rows,
        )

    def _allocate(self, at: Evaluation, score: Tensor) -> None:
        n = len(self.images)
        self.points = at.points.new_zeros(n, at.points.shape[1])
        self.start_points, self.before = self.points.clone(), self.points.clone()
        self.start_scores = score.new_zeros(n)
        self.reconstruction_scores, self.end_scores = self.start_scores.clone(), self.start_scores.clone()
        self.distances = score.new_full((n,), torch.inf)
        self._is_allocated = True

    def _joined_frames(self) -> tuple[Tensor | None, Tensor | None]:
        if self._frames is None:
            return None, None
        rows, images = (torch.cat(parts) for parts in zip(*self._frames))
        self._frames = None
        order = rows.argsort(stable=True)
        return images[order], rows[order]
