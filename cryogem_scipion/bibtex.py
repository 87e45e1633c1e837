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
"""
