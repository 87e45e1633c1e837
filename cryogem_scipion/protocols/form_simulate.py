"""The form of the simulate protocol, its parameters by what they are about."""

from pyworkflow.protocol import params


class SimulateForm:
    """Mixed into the protocol, whose settings `_addSetting` knows."""

    def _defineInputParams(self, form):
        form.addParam('inputVolumes', params.PointerParam, pointerClass='Volume, SetOfVolumes, SetOfClasses3D',
                      important=True,
                      label='Map of the particle',
                      help='A map of your particle, a coarse one will do, or a set of maps or 3D classes if the '
                           'sample is a mixture of conformations. Any box and pixel size; protein is bright. It is '
                           'resampled to the pixel size of the simulation.')
        form.addParam('volumeWeights', params.NumericListParam, default='', allowsNull=True,
                      expertLevel=params.LEVEL_ADVANCED, label='Weights of the maps',
                      help='One number for each map of a set, separated by blanks: how often it occurs. Empty: 3D '
                           'classes are as frequent as they have particles, the maps of a set equally frequent.')
        form.addParam('inputCoordinates', params.PointerParam, pointerClass='SetOfCoordinates', allowsNull=True,
                      important=True, label='Picked particles',
                      help='Particles picked on real micrographs; a few hundred are enough. Their number gives the '
                           'density of particles, what lies between them gives ice and noise. Only micrographs with '
                           'picks are used: pick all particles of a few micrographs rather than a few of all.')
        form.addParam('inputMicrographs', params.PointerParam, pointerClass='SetOfMicrographs', allowsNull=True,
                      label='Real micrographs',
                      help='The micrographs to imitate; particles must be dark in them. Needed when there are no '
                           'picks. With picks leave it empty to use the picked micrographs themselves, or give '
                           'another version of them with the same names, for instance a binned one.')
        self._addCtfParam(form, 'what is made has a defocus like theirs',
                          'without any, they are estimated here, which takes a few seconds per micrograph')
        form.addParam('estimateCtfs', params.BooleanParam, default=False, expertLevel=params.LEVEL_ADVANCED,
                      label='Estimate CTFs anew?',
                      help='Yes: where no CTFs are given, they are estimated here although the project knows some.')
        self._addSetting(form, 'n_micrographs', 'Number of micrographs',
                         more='20 are enough to train on; generate makes any number later.')
        self._addSetting(form, 'particles', 'Particle stacks', display=params.EnumParam.DISPLAY_HLIST,
                         more='generated: cut from the micrographs; clean: the same particles alone and without '
                              'noise. All carry their true poses and CTFs.')
        form.addParam('preview', params.LabelParam, label='Preview: one micrograph with these settings',
                      help='The magic wand makes one micrograph with the present values, puts the measured noise of '
                           'the first micrographs on it and shows it beside a real one. It takes about half a minute '
                           'and changes nothing.')
        self._addSetting(form, 'box_size', 'Box size (px)', allowsPointers=True, expertLevel=params.LEVEL_ADVANCED)
        self._addSetting(form, 'seed', 'Random seed', expertLevel=params.LEVEL_ADVANCED)
        self._addFileParams(form)

    def _defineSpecimenParams(self, form):
        self._addSetting(form, 'particles_per_micrograph', 'Particles per micrograph', 'Mean', 'Standard deviation')
        self._addSetting(form, 'signal_to_noise', 'Signal-to-noise ratio', more='0.1 is common.')
        self._addSetting(form, 'minimum_distance', 'Least distance (Å)')
        self._addSetting(form, 'allowed_overlap', 'Allowed overlap', expertLevel=params.LEVEL_ADVANCED,
                         more='0.2 lets a particle cover a fifth of the diameter of another.')
        self._addSetting(form, 'clustering', 'Clustering', expertLevel=params.LEVEL_ADVANCED)
        form.addParam('exclusionMasks', params.PathParam, default='', allowsNull=True,
                      expertLevel=params.LEVEL_ADVANCED, label='Exclusion masks',
                      help='A mask or a pattern of masks (MRC, TIFF, PNG), not 0 where no particle may lie, as carbon '
                           'or dirt: one for all, or named like the micrographs. Empty: particles lie anywhere.')
        self._addSetting(form, 'particle_diameter', 'Particle diameter (Å)', allowsPointers=True)
        self._addSetting(form, 'ice_thickness', 'Ice thickness (Å)',
                         more='400 Å is thin ice as aimed at in single-particle work.')
        self._addSetting(form, 'ice_model', 'Ice model', display=params.EnumParam.DISPLAY_HLIST,
                         expertLevel=params.LEVEL_ADVANCED)
        self._addSetting(form, 'working_pixel_size', 'Pixel size (Å/px)', expertLevel=params.LEVEL_ADVANCED)
        self._addSetting(form, 'mask_threshold', 'Mask threshold', expertLevel=params.LEVEL_ADVANCED)
        form.addParam('inputMask', params.PointerParam, pointerClass='VolumeMask', allowsNull=True,
                      expertLevel=params.LEVEL_ADVANCED, label='Mask of the particle',
                      help='What of the maps is particle, 1, and what is solvent, 0; sampled as the first map. Empty: '
                           'made from the map, low-passed and cut at the mask threshold.')
        self._addSetting(form, 'low_pass', 'Low-pass (Å)', allowsPointers=True, expertLevel=params.LEVEL_ADVANCED)

    def _defineViewParams(self, form):
        self._addSetting(form, 'symmetry', 'Symmetry')
        form.addParam('inputParticles', params.PointerParam, pointerClass='SetOfParticles', allowsNull=True,
                      pointerCondition='hasAlignmentProj', label='Angular distribution',
                      help='Particles with poses, of a refinement of your data: the views are drawn from theirs, so '
                           'that preferred orientations are those of your sample. Empty: all views are equally '
                           'frequent.')
        self._addSetting(form, 'preferred_view', 'Preferred view (degrees)', 'Rot', 'Tilt',
                         expertLevel=params.LEVEL_ADVANCED)
        self._addSetting(form, 'view_spread', 'Spread of the views (degrees)', expertLevel=params.LEVEL_ADVANCED)

    def _defineOpticsParams(self, form):
        self._addSetting(form, 'defocus_range', 'Defocus (Å)', 'Min', 'Max')
        self._addSetting(form, 'astigmatism', 'Astigmatism (Å)', expertLevel=params.LEVEL_ADVANCED)
        self._addSetting(form, 'phase_shift', 'Phase shift (degrees)', 'From', 'To', expertLevel=params.LEVEL_ADVANCED)
        self._addSetting(form, 'b_factor', 'B-factor (Å²)', expertLevel=params.LEVEL_ADVANCED)
        self._addSetting(form, 'ice_tilt', 'Tilt of the ice (degrees)', expertLevel=params.LEVEL_ADVANCED)
        self._addSetting(form, 'defocus_error', 'Largest defocus error (Å)', expertLevel=params.LEVEL_ADVANCED,
                         more='A smaller one takes more time.')
