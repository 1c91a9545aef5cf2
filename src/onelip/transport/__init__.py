"""Wasserstein-1 distances: proved lower bounds from 1-Lipschitz critics, and exact references."""

from onelip.transport._gradient_penalty import gradient_penalty
from onelip.transport.critic_training import CriticTraining, Sampler, Source, other_seed
from onelip.transport.exact import exact_distance
from onelip.transport.funnels import funnels
from onelip.transport.judgement import LowerBound, check_diameter, judge
from onelip.transport.known_tasks import check_task, known_task
from onelip.transport.lower_bound import default_critic, split, wasserstein_lower_bound
from onelip.transport.tasks import TASKS, KnownTask, gaussians, high_dimensional_cone
from onelip.transport.wgan import WGAN

__all__ = [
    "TASKS",
    "WGAN",
    "CriticTraining",
    "KnownTask",
    "LowerBound",
    "Sampler",
    "Source",
    "check_diameter",
    "check_task",
    "default_critic",
    "exact_distance",
    "funnels",
    "gaussians",
    "gradient_penalty",
    "high_dimensional_cone",
    "judge",
    "known_task",
    "other_seed",
    "split",
    "wasserstein_lower_bound",
]
