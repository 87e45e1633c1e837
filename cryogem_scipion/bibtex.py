"""
@inproceedings{Zhang2024,
    title = {CryoGEM: Physics-Informed Generative Cryo-Electron Microscopy},
    author = {Zhang, Jiakai and Chen, Qihe and Zeng, Yan and Gao, Wenyuan and He, Xuming and Liu, Zhijie
        and Yu, Jingyi},
    booktitle = {Advances in Neural Information Processing Systems},
    volume = {37},
    year = {2024},
    url = {https://arxiv.org/abs/2312.02235}
}

@inproceedings{Park2020,
    title = {Contrastive Learning for Unpaired Image-to-Image Translation},
    author = {Park, Taesung and Efros, Alexei A. and Zhang, Richard and Zhu, Jun-Yan},
    booktitle = {European Conference on Computer Vision},
    year = {2020},
    url = {https://arxiv.org/abs/2007.15651}
}

@article{Scheres2012,
    title = {{RELION}: Implementation of a Bayesian approach to cryo-{EM} structure determination},
    author = {Scheres, Sjors H. W.},
    journal = {Journal of Structural Biology},
    volume = {180},
    number = {3},
    pages = {519--530},
    year = {2012},
    doi = {https://doi.org/10.1016/j.jsb.2012.09.006}
}

@article{Bepler2019,
    title = {Positive-unlabeled convolutional neural networks for particle picking in cryo-electron micrographs},
    author = {Bepler, Tristan and Morin, Andrew and Rapp, Micah and Brasch, Julia and Shapiro, Lawrence
        and Noble, Alex J. and Berger, Bonnie},
    journal = {Nature Methods},
    volume = {16},
    pages = {1153--1160},
    year = {2019},
    doi = {https://doi.org/10.1038/s41592-019-0575-8}
}

@inproceedings{Paszke2019,
    title = {{PyTorch}: An Imperative Style, High-Performance Deep Learning Library},
    author = {Paszke, Adam and Gross, Sam and Massa, Francisco and Lerer, Adam and Bradbury, James and Chanan, Gregory
        and others},
    booktitle = {Advances in Neural Information Processing Systems},
    volume = {32},
    year = {2019},
    url = {https://arxiv.org/abs/1912.01703}
}

@article{Harris2020,
    title = {Array programming with {NumPy}},
    author = {Harris, Charles R. and Millman, K. Jarrod and van der Walt, St{\'e}fan J. and Gommers, Ralf and others},
    journal = {Nature},
    volume = {585},
    pages = {357--362},
    year = {2020},
    doi = {https://doi.org/10.1038/s41586-020-2649-2}
}

@article{Virtanen2020,
    title = {{SciPy} 1.0: fundamental algorithms for scientific computing in {Python}},
    author = {Virtanen, Pauli and Gommers, Ralf and Oliphant, Travis E. and Haberland, Matt and others},
    journal = {Nature Methods},
    volume = {17},
    pages = {261--272},
    year = {2020},
    doi = {https://doi.org/10.1038/s41592-019-0686-2}
}

@article{Burnley2017,
    title = {Recent developments in the {CCP-EM} software suite},
    author = {Burnley, Tom and Palmer, Colin M. and Winn, Martyn},
    journal = {Acta Crystallographica Section D},
    volume = {73},
    pages = {469--477},
    year = {2017},
    doi = {https://doi.org/10.1107/S2059798317007859}
}
"""
