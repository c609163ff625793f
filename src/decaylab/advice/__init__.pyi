from . import deepseek as deepseek
from . import power_lines as power_lines
from . import step_law as step_law
from . import timescale as timescale
from .advising import Advice as Advice
from .advising import advise as advise
from .carry_over import Reference as Reference
from .recommendation import Recommendation as Recommendation
