"""Forms, validation and installation of the protocols, without running the engine."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

import pyworkflow as pw
from pwem.objects import Class3D, Particle, SetOfClasses3D, SetOfParticles, Volume
from pwem.protocols import ProtImportMicrographs, ProtImportVolumes
from pyworkflow.config import VariablesRegistry
from pyworkflow.protocol import params
from pyworkflow.tests import BaseTest, setupTestProject

import cryogem_scipion
from cryogem.config import default_of
from cryogem_scipion import engine
from cryogem_scipion.constants import CRYOGEM_CUDA_LIB, CRYOGEM_ENV_ACTIVATION, CRYOGEM_TORCH
from cryogem_scipion.convert import collectSettings
from cryogem_scipion.protocols import (
    ProtCryogemEvaluate,
    ProtCryogemExportModel,
    ProtCryogemGenerate,
    ProtCryogemImportModel,
    ProtCryogemSimulate,
    ProtCryogemTrain,
)
from cryogem_scipion.tests.data import makeSyntheticData, writePicks

PROTOCOLS = (ProtCryogemSimulate, ProtCryogemTrain, ProtCryogemGenerate, ProtCryogemEvaluate, ProtCryogemImportModel,
             ProtCryogemExportModel)


class TestCryogemForms(BaseTest):
    """What the user sees before anything runs."""

    @classmethod
    def setUpClass(cls):
        start = os.getcwd()
        cls.addClassCleanup(os.chdir, start)
        setupTestProject(cls)
        folder = tempfile.mkdtemp(prefix='cryogem_forms_')
        cls.addClassCleanup(shutil.rmtree, folder)
        cls.specimen = makeSyntheticData(Path(folder), number=2, side=128)
        cls.importVolume = cls.newProtocol(ProtImportVolumes, filesPath=cls.specimen.volume, samplingRate=3.0)
        cls.importMics = cls.newProtocol(ProtImportMicrographs, filesPath=cls.specimen.micrographs,
                                         samplingRate=4.0, **cls.specimen.acquisition)
        for protocol in (cls.importVolume, cls.importMics):
            cls.launchProtocol(protocol)

    def newSimulate(self, **values):
        """Return a form with map and micrographs, and what has to be said without picks."""
        given = {'particlesMean': 9.0, 'particlesSd': 1.0, 'signalToNoise': 0.1, **values}
        protocol = self.newProtocol(ProtCryogemSimulate, **given)
        protocol.inputVolumes.set(self.importVolume)
        protocol.inputVolumes.setExtended('outputVolume')
        protocol.inputMicrographs.set(self.importMics)
        protocol.inputMicrographs.setExtended('outputMicrographs')
        return protocol

    def test_the_protocols_are_in_the_tree_under_data_simulation(self):
        text = Path(cryogem_scipion.__file__).with_name('protocols.conf').read_text(encoding='utf-8')
        for protocol in PROTOCOLS:
            self.assertIn(f'"{protocol.__name__}"', text)
            self.assertEqual(protocol.getClassLabel().split(' - ')[0], 'cryogem')
        self.assertIn('"Data simulation"', text)

    def test_every_parameter_has_a_label_and_a_help(self):
        for protocolClass in PROTOCOLS:
            for name, param in self.newProtocol(protocolClass).getDefinition().iterAllParams():
                if name not in ('runName', 'runMode', 'hostName', params.USE_GPU, params.GPU_LIST):
                    self.assertTrue(param.getLabel() and param.getHelp(), f'{protocolClass.__name__}.{name}')

    def test_an_untouched_form_asks_for_the_defaults_of_the_engine(self):
        for protocolClass in PROTOCOLS:
            protocol, configClass = self.newProtocol(protocolClass), protocolClass._configClass
            for key, value in collectSettings(protocol, configClass, protocol._settingKeys).items():
                default = default_of(configClass, key)
                self.assertEqual(value, list(default) if isinstance(default, tuple) else default, key)

    def test_the_ice_of_the_published_code_can_be_chosen(self):
        self.assertEqual(self.newProtocol(ProtCryogemSimulate)._getSettings()['ice_model'], 'smooth')
        self.assertEqual(self.newProtocol(ProtCryogemSimulate, iceModel=1)._getSettings()['ice_model'], 'paper')

    def test_the_label_given_to_a_new_protocol_is_kept(self):
        self.assertEqual(self.newProtocol(ProtCryogemTrain, objLabel='mine').getObjLabel(), 'mine')

    def test_all_wrong_settings_are_named_at_once_by_their_labels(self):
        errors = '\n'.join(self.newSimulate(nMicrographs=0, boxSize=51, defocusMin=3e4).validate())
        self.assertIn('*Number of micrographs* cannot be 0; give a positive number', errors)
        self.assertIn('*Box size (px)* cannot be 51; use the even number 52', errors)
        self.assertIn('*Defocus (Å): Min, Max* cannot be', errors)

    def test_settings_that_exclude_each_other_are_named(self):
        errors = self.newSimulate(minimumDistance=90.0, allowedOverlap=0.2).validate()
        self.assertEqual(errors, ['*Allowed overlap* cannot be 0.2; give either it or minimum_distance.'])

    def test_half_a_pair_of_numbers_is_refused(self):
        errors = '\n'.join(self.newSimulate(particlesSd=None).validate())
        self.assertIn('*Particles per micrograph: Mean, Standard deviation*', errors)

    def test_a_good_form_has_no_errors_and_warns_of_what_will_be_resampled(self):
        protocol = self.newSimulate()
        self.assertEqual(protocol.validate(), [])
        warnings = '\n'.join(protocol.warnings())
        self.assertIn('3.000 Å/px', warnings)
        self.assertIn('2 are few', warnings)

    def test_without_micrographs_and_picks_simulate_says_what_is_missing(self):
        protocol = self.newProtocol(ProtCryogemSimulate)
        errors = '\n'.join(protocol.validate())
        self.assertIn('*Map of the particle* cannot be EMPTY', errors)
        self.assertIn('*Picked particles*, *Real micrographs* are both empty', errors)
        self.assertEqual(protocol.warnings(), [])

    def test_without_picks_their_number_and_the_signal_must_be_said(self):
        errors = '\n'.join(self.newSimulate(particlesMean=None, particlesSd=None, signalToNoise=None).validate())
        self.assertIn('*Particles per micrograph* is empty', errors)
        self.assertIn('*Signal-to-noise ratio* is empty', errors)

    def test_picks_alone_bring_their_micrographs_and_only_picked_ones_are_used(self):
        mics = [mic.clone() for mic in self.importMics.outputMicrographs]
        picks = {key: value for key, value in self.specimen.picks.items() if key in mics[1].getMicName()}
        protocol = self.newSimulate()
        protocol.inputMicrographs.set(None)
        coordinates = writePicks(os.path.join(self.getOutputPath(), 'picks.sqlite'), picks, mics, 48)
        coordinates.setMicrographs(self.importMics.outputMicrographs)
        with mock.patch.object(protocol.inputCoordinates, 'get', return_value=coordinates):
            self.assertEqual(protocol.getInputMicrographs().getSize(), 2)
            chosen, groups = protocol.chooseMicrographs()
            self.assertIn('1 of 2', '\n'.join(protocol.warnings()))
        self.assertEqual([mic.getObjId() for mic in chosen], [2])
        self.assertEqual(len(groups[2]), len(picks[next(iter(picks))]))

    def test_picks_of_other_micrographs_are_refused(self):
        stranger = [mic.clone() for mic in self.importMics.outputMicrographs]
        for mic in stranger:
            mic.setMicName('other_' + mic.getMicName())
        picks = {f'other_{key}': value for key, value in self.specimen.picks.items()}
        coordinates = writePicks(os.path.join(self.getOutputPath(), 'other.sqlite'), picks, stranger, 48)
        coordinates.setMicrographs(self.importMics.outputMicrographs)
        protocol = self.newSimulate()
        with mock.patch.object(protocol.inputCoordinates, 'get', return_value=coordinates):
            self.assertIn('are on none of the', '\n'.join(protocol.validate()))

    def test_weights_must_be_one_positive_number_per_map(self):
        self.assertIn('are 2 for 1 maps', '\n'.join(self.newSimulate(volumeWeights='1 2').validate()))
        self.assertIn('cannot be 0', '\n'.join(self.newSimulate(volumeWeights='0').validate()))

    def makeClasses(self, sizes):
        """Return 3D classes of the map with so many particles each."""
        images = SetOfParticles(filename=os.path.join(self.getOutputPath(), 'images.sqlite'))
        images.setSamplingRate(3.0)
        classes = SetOfClasses3D(filename=os.path.join(self.getOutputPath(), 'classes.sqlite'))
        classes.setImages(images)
        for size in sizes:
            one, volume = Class3D(), Volume()
            volume.setLocation(self.specimen.volume)
            one.setRepresentative(volume)
            classes.append(one)
            for number in range(1, size + 1):
                particle = Particle()
                particle.setLocation(number, 'x.mrcs')
                one.append(particle)
            classes.update(one)
        classes.write()
        return classes

    def test_3d_classes_are_as_frequent_as_they_have_particles(self):
        classes, protocol = self.makeClasses((3, 1)), self.newSimulate()
        with mock.patch.object(protocol.inputVolumes, 'get', return_value=classes):
            volumes = protocol.getVolumes()
            self.assertEqual([volume.getFileName() for volume in volumes], [self.specimen.volume] * 2)
            self.assertEqual([volume.getSamplingRate() for volume in volumes], [3.0, 3.0])
            self.assertEqual(protocol._getWeights(), [3.0, 1.0])
            self.assertEqual(protocol.validate(), [])
            self.assertIn('will be resampled', ' '.join(protocol.warnings()))
            protocol.volumeWeights.set('1 1')
            self.assertEqual(protocol._getWeights(), [1.0, 1.0])

    def test_gpu_ids_that_would_kill_the_process_are_refused(self):
        for ids in ('-1', '0,', '', 'all'):
            errors = '\n'.join(self.newSimulate(gpuList=ids).validate())
            self.assertEqual('*GPU ids* cannot be' in errors, ids != '0,', ids)

    def test_everything_that_is_wrong_is_told_at_once(self):
        protocol = self.newSimulate(volumeWeights='1 2', nMicrographs=0, gpuList='x', preferredRot=1.0)
        protocol.inputMicrographs.set(None)
        errors = '\n'.join(protocol.validate())
        for part in ('*Number of micrographs*', '*GPU ids*', 'are both empty', '*Weights of the maps*',
                     '*Preferred view (degrees): Rot, Tilt*'):
            self.assertIn(part, errors)

    def test_without_picks_the_contrast_is_doubted(self):
        self.assertIn('whether particles are dark or bright', '\n'.join(self.newSimulate().warnings()))

    def test_two_inputs_at_most_are_important_in_every_form(self):
        for protocolClass in PROTOCOLS:
            protocol = self.newProtocol(protocolClass)
            important = [name for name, param in protocol.getDefinition().iterAllParams()
                         if param.isImportant() and name != 'runName' and protocol.evalParamCondition(name)]
            self.assertIn(len(important), (1, 2), important)

    def test_numbers_that_other_protocols_compute_can_be_linked(self):
        protocol = self.newProtocol(ProtCryogemSimulate)
        for name in ('boxSize', 'particleDiameter', 'lowPass'):
            self.assertTrue(protocol.getParam(name).allowsPointers, name)

    def test_outputs_offered_for_linking_are_those_that_will_exist(self):
        names = {'none': set(), 'clean': {'outputCleanParticles'}, 'generated': {'outputParticles'},
                 'both': {'outputParticles', 'outputCleanParticles'}}
        for number, choice in enumerate(names):
            protocol = self.newProtocol(ProtCryogemGenerate, particles=number)
            self.assertEqual(protocol.getEnumText('particles'), choice)
            self.assertEqual(set(protocol.getPossibleOutputs()),
                             {'outputMicrographs', 'outputCoordinates', 'outputCTF'} | names[choice])

    def test_a_model_is_asked_for_only_when_the_noise_is_a_model(self):
        protocol = self.newProtocol(ProtCryogemGenerate)
        choices = protocol.getParam('noise').choices
        for number, name in enumerate(choices):
            protocol.noise.set(number)
            self.assertEqual(protocol.evalParamCondition('inputModel'), name == 'trained model')
            self.assertEqual(protocol.evalParamCondition('snr'), name in ('gaussian', 'poisson_gaussian'))
            self.assertEqual(protocol.evalParamCondition('dose'), name in ('poisson', 'poisson_gaussian'))

    def test_ctfs_are_asked_for_in_the_same_words_and_each_form_says_what_for(self):
        fields = [self.newProtocol(one).getParam('inputCTF') for one in (ProtCryogemSimulate, ProtCryogemEvaluate)]
        self.assertEqual(len({one.getLabel() for one in fields}), 1)
        texts = [str(one.help) for one in fields]
        self.assertTrue(all('those that the project knows of these micrographs are taken' in text for text in texts))
        self.assertIn('estimated here', texts[0])
        self.assertIn('every real micrograph needs one', texts[1])

    def test_threads_of_the_form_are_those_of_the_engine_and_what_a_cluster_reserves(self):
        for protocolClass in PROTOCOLS:
            protocol = self.newProtocol(protocolClass, numberOfThreads=3)
            self.assertTrue(protocolClass.modeSerial(protocol))
            self.assertEqual(protocol.getParam('numberOfThreads').getLabel() if protocol.allowThreads else 'Threads',
                             'Threads')
            self.assertEqual((protocol.getBinThreads(), protocol._getComputeSettings()['workers']), (3, 3))

    def test_a_simulation_that_is_not_finished_is_refused(self):
        for protocolClass in (ProtCryogemTrain, ProtCryogemGenerate):
            protocol = self.newProtocol(protocolClass)
            protocol.inputSimulation.set(self.newSimulate())
            self.assertIn('*Simulation* is new; wait until it is finished', '\n'.join(protocol.validate()))

    def test_citations_of_every_protocol_are_found(self):
        for protocolClass in PROTOCOLS:
            citations = ' '.join(self.newProtocol(protocolClass).citations())
            self.assertIn('Zhang', citations)
            self.assertNotIn('not found', citations)

    def test_steps_depend_on_every_setting_of_the_form(self):
        protocol = self.newSimulate()
        before = protocol._getSettingsText()
        for key in protocol._settingKeys:
            for name in cryogem_scipion.convert.getParamNames(key):
                value = getattr(protocol, name)
                kept = value.get()
                value.set('C2' if isinstance(kept, str) else 1 if isinstance(
                    protocol.getParam(name), params.EnumParam) else (kept or 0) + 1)
                self.assertNotEqual(protocol._getSettingsText(), before, name)
                value.set(kept)
        self.assertEqual(protocol._getSettingsText(), before)

    def test_an_input_made_anew_under_the_same_name_is_another_input(self):
        protocol = self.newSimulate()
        copy = os.path.join(self.getOutputPath(), 'map.mrc')
        shutil.copy(self.specimen.volume, copy)
        volume = Volume()
        volume.setLocation(copy)
        with mock.patch.object(protocol.inputVolumes, 'get', return_value=volume):
            before = protocol._describeInputs(protocol.inputVolumes)
            self.assertEqual(protocol._describeInputs(protocol.inputVolumes), before)
            with open(copy, 'r+b') as file:
                file.seek(2000)
                file.write(b'other')
            self.assertNotEqual(protocol._describeInputs(protocol.inputVolumes), before)
        for pointer in (protocol.inputMicrographs, protocol.inputVolumes):
            self.assertNotIn('""', protocol._describeInputs(pointer))

    def test_a_run_is_continued_only_if_nothing_it_depends_on_changed(self):
        protocol = self.newProtocol(ProtCryogemTrain)
        folder = os.path.join(tempfile.mkdtemp(dir=self.getOutputPath()), 'model')
        self.assertFalse(protocol._startOrContinue(folder, 'a'))
        os.mkdir(folder)
        Path(folder, 'checkpoint').touch()
        self.assertTrue(protocol._startOrContinue(folder, 'a'))
        self.assertTrue(os.path.exists(os.path.join(folder, 'checkpoint')))
        self.assertFalse(protocol._startOrContinue(folder, 'b'))
        self.assertFalse(os.path.exists(folder))


class TestCryogemEngine(BaseTest):
    """How the engine is started, and what is said when it fails."""

    def getCommand(self, activation: str, usesGpu: bool) -> tuple[str, str]:
        plugin = pw.Config.getDomain().getPlugins()['cryogem_scipion'].Plugin
        with mock.patch.object(plugin, 'getEnvActivation', return_value=activation):
            return engine.getCommandLine(plugin, usesGpu, 'train', 'Runs/1/extra/train.json')

    def test_the_engine_runs_in_the_current_interpreter_by_default(self):
        program, arguments = self.getCommand('', False)
        self.assertEqual(program, f'{sys.executable} -m cryogem')
        self.assertEqual(arguments, 'train --config Runs/1/extra/train.json')

    def test_the_gpu_of_the_form_is_made_the_only_visible_one(self):
        self.assertTrue(self.getCommand('', True)[0].startswith('CUDA_VISIBLE_DEVICES=%(GPU)s '))
        program = self.getCommand('. /opt/venv/bin/activate', True)[0]
        self.assertIn('activate && CUDA_VISIBLE_DEVICES=%(GPU)s python ', program)

    def test_a_foreign_environment_is_activated_and_sees_no_packages_of_scipion(self):
        plugin = cryogem_scipion.Plugin
        with mock.patch.dict(plugin._vars, {CRYOGEM_ENV_ACTIVATION: '. /opt/venv/bin/activate'}), \
                mock.patch.dict(os.environ, {'PYTHONPATH': '/somewhere'}):
            self.assertNotIn('PYTHONPATH', plugin.getEnviron())
            self.assertEqual(plugin.validateInstallation(), [])

    def test_cuda_libraries_are_those_of_torch_unless_the_user_names_others(self):
        plugin = cryogem_scipion.Plugin
        with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, {'LD_LIBRARY_PATH': '/others'}):
            for named, expected in (('', '/others'), (folder, f'{folder}:/others')):
                with mock.patch.dict(plugin._vars, {CRYOGEM_CUDA_LIB: named}):
                    self.assertEqual(plugin.getEnviron()['LD_LIBRARY_PATH'], expected)
                    self.assertEqual(plugin.validateInstallation(), [])
        with mock.patch.dict(plugin._vars, {CRYOGEM_CUDA_LIB: '/nowhere/lib64'}):
            message, = plugin.validateInstallation()
        self.assertIn(f'{CRYOGEM_CUDA_LIB} names the folder /nowhere/lib64, which does not exist', message)

    def test_the_variables_are_offered_with_a_description_in_the_editor_of_scipion(self):
        offered = VariablesRegistry.variables()
        for name in (CRYOGEM_ENV_ACTIVATION, CRYOGEM_TORCH, CRYOGEM_CUDA_LIB):
            self.assertIn('Empty:', offered[name].description)

    def test_missing_torch_is_told_with_two_remedies(self):
        with mock.patch('importlib.util.find_spec', return_value=None):
            message = cryogem_scipion.Plugin.validateInstallation()[0]
        self.assertIn('pip install torch', message)
        self.assertIn(CRYOGEM_ENV_ACTIVATION, message)

    def test_an_interpreter_without_any_package_reaches_the_bundled_engine(self):
        launcher = Path(engine.__file__).with_name('launcher.py')
        done = subprocess.run([sys.executable, '-I', '-S', str(launcher), '--version'], capture_output=True,
                              text=True, check=False, cwd=tempfile.gettempdir())
        self.assertEqual(done.stdout.strip(), f'cryogem {cryogem_scipion.__version__}', done.stderr)

    def test_the_last_error_line_of_the_engine_is_the_message(self):
        with tempfile.NamedTemporaryFile('w', suffix='.stderr') as log:
            log.write('ERROR: of an earlier run\n')
            log.flush()
            start = os.path.getsize(log.name)
            log.write("some warning\nERROR: volume 'a.mrc' is constant; give a map\n")
            log.flush()
            self.assertEqual(engine.explainFailure('simulate', 2, log.name, start),
                             "volume 'a.mrc' is constant; give a map")
            log.truncate(start)
            self.assertIn('ended with exit code 1', engine.explainFailure('simulate', 1, log.name, start))

    def test_a_package_that_the_environment_lacks_is_named_with_a_remedy(self):
        with tempfile.NamedTemporaryFile('w', suffix='.stderr') as log:
            log.write("ERROR: ModuleNotFoundError: No module named 'torch' (a fault of cryogem, please report it)\n")
            log.flush()
            message = engine.explainFailure('train', 1, log.name)
        self.assertIn("has no package 'torch'; install the requirements", message)
        self.assertNotIn('fault', message)

    def test_a_killed_engine_is_told_apart(self):
        self.assertIn('was killed', engine.explainFailure('train', -9, '/nowhere'))

    def test_an_offered_environment_holds_torch_but_nothing_of_scipion(self):
        environment = mock.Mock()
        cryogem_scipion.Plugin.defineBinaries(environment)
        (command, flag), = environment.addPackage.call_args.kwargs['commands']
        self.assertIn('torch', command)
        self.assertIn('mrcfile', command)
        self.assertNotIn('scipion', command.partition(' -m ')[2])      # its Python may lie in a folder of any name
        self.assertIn(f'touch {flag}', command)
