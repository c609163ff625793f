from .cases import GOLDEN as GOLDEN
from .finding import Finding as Finding
from .identities import IDENTITIES as IDENTITIES
from .meaning import MEANINGS as MEANINGS
from .report import Report as Report
from .report import check as check
