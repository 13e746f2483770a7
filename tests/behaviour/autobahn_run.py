# Runs under Python 2.7, as the suite does: python2.7 autobahn_run.py SITE_FOLDER SPEC
import site
import sys

site.addsitedir(sys.argv[1])

from autobahntestsuite.wstest import run

sys.argv = ["wstest", "-m", "fuzzingclient", "-s", sys.argv[2]]
run()
