"""Runs of protocols in the process of the test: a second or two less each, and the steps can be looked into."""

from pathlib import Path

import pyworkflow.utils as pwutils
from pyworkflow.protocol import runProtocolMain

from cryogem_scipion.tests.data import makeSyntheticData


class InProcess:
    """Mixed into a test of the chain, its launches happen in the process of the test."""

    @classmethod
    def prepareSimulation(cls):
        """Make a project with imports of two synthetic micrographs and a simulation of one."""
        cls.prepareProject()
        cls.specimen = makeSyntheticData(Path(cls.folder), number=2)
        cls.importData()
        cls.simulate = cls.runSimulate(nMicrographs=1)

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
