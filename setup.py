from setuptools import setup

setup(cffi_modules=["native/build.py:kernel", "native/build.py:server"])
