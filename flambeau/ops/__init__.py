from . import convert
from . import creation
from . import arithmetic
from . import compare
from . import matmul
from . import reductions
from . import views
