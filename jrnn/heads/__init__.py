"""Heads, one per file: a dense layer and the distribution of the next symbol."""

from jrnn.heads.bernoulli import bernoulli as bernoulli
from jrnn.heads.categorical import categorical as categorical
from jrnn.heads.distribution import Distribution as Distribution
from jrnn.heads.gaussian import gaussian as gaussian
from jrnn.heads.head import Head as Head
from jrnn.heads.mixture import mixture as mixture
from jrnn.heads.mixture_kernels import Kernel as Kernel
from jrnn.heads.mixture_kernels import discretised_logistic as discretised_logistic
from jrnn.heads.mixture_kernels import gaussian_kernel as gaussian_kernel
from jrnn.heads.mixture_kernels import logistic_kernel as logistic_kernel
from jrnn.heads.student_t import student_t as student_t
