"""Runs of protocols in the process of the test: a second or two less each, and the steps can be looked into."""

import pyworkflow.utils as pwutils
from pyworkflow.protocol import runProtocolMain


class InProcess:
    """Mixed into a test class, its launches happen in the process of the test."""

    @classmethod
    def launchProtocol(cls, protocol, wait=True):
        launchInProcess(cls.proj, protocol)
        if protocol.isFailed():
            raise RuntimeError(protocol.getErrorMessage())


def launchInProcess(project, protocol) -> None:
    """Run a protocol as the project's launcher would, but here; the working directory must be the project's.

    Raises
    ------
    AssertionError : the form has errors; they are told.
    """
    errors = protocol.validate()
    if errors:
        raise AssertionError('\n'.join(errors))
    project._setupProtocol(protocol)
    protocol.makePathsAndClean()
    project.mapper.commit()
    pwutils.copyFile(project.dbPath, protocol.getDbPath())
    runProtocolMain(project.path, protocol.getDbPath(), protocol.strId())
    updateFromDisk(project, protocol)


def updateFromDisk(project, protocol) -> None:
    """Take over what a run has stored, as the window of the project does while it runs."""
    protocol.lastUpdateTimeStamp.set(None)
    project._updateProtocol(protocol)
    project.mapper.commit()
