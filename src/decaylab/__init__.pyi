from .advice import advise as advise
from .conventions import explain as explain
from .decay import attach as attach
from .errors import DecaylabError as DecaylabError
from .monitor import watch as watch
from .params import audit as audit
from .params import decay_groups as decay_groups
from .params import roles as roles
from .tuning import report as report
from .tuning import tune as tune

__version__: str
