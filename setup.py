"""Everything about the distribution is read from settings.ini; pyproject.toml holds only the build system and tool tables."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

config = ConfigParser(delimiters=["="])
config.read("settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]

run, sweep, pyhf, sim, root, onnx, dev = (
    cfg[f"{extra}_requirements"].split() for extra in ("run", "sweep", "pyhf", "sim", "root", "onnx", "dev")
)

# On a package index the links of the README lead to the repository.
readme = Path("README.md").read_text(encoding="utf-8")
readme = readme.replace("](nbs/images/", f"]({cfg['git_url']}/raw/{cfg['branch']}/nbs/images/")
readme = readme.replace("](nbs/", f"]({cfg['git_url']}/blob/{cfg['branch']}/nbs/")

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=readme,
    long_description_content_type="text/markdown",
    keywords=cfg["keywords"],
    author=cfg["author"],
    url=cfg["git_url"],
    license="BSD-3-Clause",
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Topic :: Scientific/Engineering :: Physics",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
    ],
    python_requires=f">={cfg['min_python']}",
    install_requires=cfg["requirements"].split(),
    extras_require={
        "run": run,
        "sweep": run + sweep,
        "pyhf": pyhf,
        "sim": sim,
        "root": root,
        "onnx": onnx,
        "dev": run + sweep + pyhf + sim + root + onnx + dev,
    },
    # The paper notebooks live in nbs/ and travel in the wheel as hepinf/papers/.
    packages=find_packages(include=["hepinf", "hepinf.*"]) + ["hepinf.papers"],
    package_dir={"hepinf.papers": "nbs/papers"},
    package_data={
        "hepinf": ["py.typed", "workflow/Snakefile", "workflow/profiles/*/config.yaml"],
        "hepinf.problems": ["data/*.npz", "data/*.txt"],
        "hepinf.papers": ["*.ipynb", "*.yaml"],
    },
    include_package_data=False,
    entry_points={
        "console_scripts": cfg["console_scripts"].split(),
        "nbdev": [f"{cfg['lib_path']}={cfg['lib_path']}._modidx:d"],
    },
    zip_safe=False,
)
