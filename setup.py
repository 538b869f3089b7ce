from setuptools import setup

# One wheel serves every Python from 3.11 on: the extensions keep to its stable interface.
setup(cffi_modules=["native/build.py:kernel", "native/build.py:server"], options={"bdist_wheel": {"py_limited_api": "cp311"}})
