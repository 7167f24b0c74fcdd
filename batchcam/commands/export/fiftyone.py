from batchcam.commands.export.form import Task
from batchcam.record.rows import Outcome


def write(task: Task) -> Outcome:
    raise NotImplementedError
